"""An HTTP server for tests that says whatever bytes it is told, right or wrong, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import NamedTuple

TLS_HELLO = b"\x16"


class Asked(NamedTuple):
    """`headers` by their names in small letters."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


Said = bytes | AsyncIterable[bytes]
Answer = Callable[[Asked], Said]


class WebServer:
    """On a port of 127.0.0.1: `netloc`. What it says ends with the connection, unless `keeps` it for the next one."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0
        self.keeps = False
        self.netloc = ""
        self._conversing: set[asyncio.Task[None]] = set()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversing.add(task)
        self.connections += 1
        try:
            await self._exchange(reader, writer)
            while self.keeps:
                await self._exchange(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def end(self) -> None:
        """Leave no connection behind."""
        for task in self._conversing:
            task.cancel()
        await asyncio.gather(*self._conversing, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == TLS_HELLO:  # of a client that tries that first
            raise ConnectionResetError
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.strip().split("\r\n")
        method, target, _ = request.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(method, target, headers, body))
        said = self.answer(self.asked[-1])
        if isinstance(said, bytes):
            writer.write(said)
        else:
            async for piece in said:
                writer.write(piece)
                await writer.drain()
        await writer.drain()


@contextlib.asynccontextmanager
async def served(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebServer]:
    server = WebServer(answer)
    async with await asyncio.start_server(server.converse, "127.0.0.1", 0, ssl=tls) as listening:
        server.netloc = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
        await server.end()


def reply(status: int = 200, body: bytes = b"", /, **headers: str) -> bytes:
    """One answer; `Content_Type="text/html"` is a header, `Content_Length` is the body's if it is not said."""
    said = {"Content_Length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in said.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def stretch(asked: Asked, content: bytes) -> bytes:
    """What a server with ranges says."""
    wanted = asked.headers.get("range")
    if wanted is None:
        return reply(200, content)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1, len(content))
    return reply(206, content[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(content)}")
