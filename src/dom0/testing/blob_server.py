"""A registry's blobs, without anything else of one, on 127.0.0.1. What it does wrong is set on it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Iterable
from random import Random

from dom0.http.server import stop_accepting
from dom0.registry.manifest import Descriptor

TYPE = "application/octet-stream"
_PIECE = 64 << 10  # bytes
_RANGE = re.compile(rb"range: bytes=(\d+)-(\d+)\r\n", re.IGNORECASE)


def content(size: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(size)  # noqa: S311 -- no secret


def describe(data: bytes) -> Descriptor:
    return Descriptor(TYPE, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


class BlobServer:
    """Serves `blobs` at `port`, within `async with`.

    `asked`: first bytes of what it was asked for, and those behind the last. The next `wrong` times that the beginning
    of a blob is asked for it is another one.
    """

    def __init__(self, blobs: Iterable[bytes]) -> None:
        self.blobs = {describe(data).digest: data for data in blobs}
        self.port = 0
        self.asked: list[tuple[int, int]] = []
        self.knows_ranges = True
        self.wrong = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> BlobServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop_accepting(self._server)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, writer)

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        data = self.blobs.get(head.split(b" ", 2)[1].rpartition(b"/")[2].decode())
        if data is None:  # only `/v2/` is asked for besides
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        asked = _RANGE.search(head) if self.knows_ranges else None
        start, stop = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(data))
        self.asked.append((start, stop))
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{len(data)}" if asked else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\n\r\n".encode())
        if start == 0 and self.wrong:
            self.wrong -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        view = memoryview(data)[start:stop]
        for at in range(0, len(view), _PIECE):
            writer.write(view[at : at + _PIECE])
            await writer.drain()
