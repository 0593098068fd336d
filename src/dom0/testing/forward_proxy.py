"""An HTTP proxy for tests, on 127.0.0.1: it tunnels by CONNECT and forwards what is asked in absolute form."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from dom0.testing.web_server import reply


class Carried(NamedTuple):
    """What it was asked for; `headers` by their names in small letters."""

    method: str
    target: str
    headers: Mapping[str, str]


class ForwardProxy:
    """Whatever name is asked for, it leads to `port` of this machine. `login`: `user:password` that it wants.

    `answer`: what it says to a CONNECT; anything but a status of 200 ends the connection.
    """

    def __init__(self, port: int, login: str = "") -> None:
        self.port = 0
        self.asked: list[Carried] = []
        self.login = login
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self._to = port

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
            method, target, _ = request.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.asked.append(Carried(method, target, headers))
            wanted = f"Basic {base64.b64encode(self.login.encode()).decode()}"
            if self.login and headers.get("proxy-authorization") != wanted:
                writer.write(reply(407, Proxy_Authenticate='Basic realm="test"'))
            elif method == "CONNECT" and b" 200 " not in self.answer.partition(b"\r\n")[0]:
                writer.write(self.answer)
            else:
                await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        method, target, headers = self.asked[-1]
        if method == "CONNECT":
            writer.write(self.answer)
        else:
            path = urlsplit(target)._replace(scheme="", netloc="").geturl()
            kept = {**headers, "connection": "close"}
            kept.pop("proxy-authorization", "")
            lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in kept.items())]
            to_server.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        with contextlib.closing(to_server):
            up, down = (asyncio.ensure_future(_copy(*ends)) for ends in ((reader, to_server), (from_server, writer)))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()


@contextlib.asynccontextmanager
async def proxied(port: int, login: str = "") -> AsyncIterator[ForwardProxy]:
    proxy = ForwardProxy(port, login)
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await proxy.converse(reader, writer)

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as listening:
        proxy.port = listening.sockets[0].getsockname()[1]
        yield proxy
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
