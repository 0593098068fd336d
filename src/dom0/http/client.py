"""Asks one HTTP server, on connections that are kept for the next question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import h11

from dom0.http.channel import READ_AHEAD, Channel, Headers, Streams, while_sending

MOST_KEPT = 8  # connections; for a burst there are as many as it needs
REPEATABLE = ("GET", "PUT", "DELETE")  # asked twice is as good as once: RFC 9110, 9.2.2


class Readable(Protocol):
    """A file, or what is made while it is sent: its pieces one after the other, and in the end an empty one."""

    def read(self, size: int, /) -> bytes: ...


Body = bytes | Readable | None


class Answer:
    """Status and headers; the body while it comes."""

    def __init__(self, head: h11.Response, channel: Channel) -> None:
        self.status = head.status_code
        self.headers = Headers(head.headers)
        self._channel = channel

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises Malformed, and ConnectionError where the body is cut off."""
        while isinstance(event := await self._channel.receive(), h11.Data):
            yield bytes(event.data)


class Client:
    """`connect` opens a connection to the server, `host` is its name there. `close` it at the end.

    There is no limit of connections at a time, because some answers never end.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]], host: str) -> None:
        self._connect = connect
        self._host = host
        self._kept: list[Channel] = []
        self._is_closed = False

    @asynccontextmanager
    async def ask(
        self, method: str, target: str, *, headers: Mapping[str, str] = {}, body: Body = None
    ) -> AsyncIterator[Answer]:
        """The answer, for the time of the block. `target` is quoted; a file is sent while it is read.

        Raises what `connect` does, ConnectionError where the connection breaks, Malformed where it is no HTTP.
        """
        told = {"Host": self._host, "User-Agent": "dom0", "Accept": "*/*", **headers}
        if isinstance(body, bytes) or (body is None and method != "GET"):
            told["Content-Length"] = str(len(body or b""))
        elif body is not None:
            told["Transfer-Encoding"] = "chunked"
        request = h11.Request(method=method, target=target, headers=list(told.items()))
        channel, answer = await self._answered(request, body)
        try:
            yield answer
        except BaseException:
            channel.abort()
            raise
        if not self._is_closed and len(self._kept) < MOST_KEPT and channel.begin_next():
            self._kept.append(channel)
        else:
            channel.abort()

    async def close(self) -> None:
        """Answers under way go on, and end their connections."""
        self._is_closed = True
        for channel in self._kept:
            channel.abort()
        self._kept.clear()
        await asyncio.sleep(0)  # an aborted connection is closed in the loop's next turn

    async def _answered(self, request: h11.Request, body: Body) -> tuple[Channel, Answer]:
        while self._kept:
            channel = self._kept.pop()
            if channel.is_stale:
                channel.abort()
                continue
            try:
                return channel, await _exchange(channel, request, body)
            except ConnectionError:  # the server closes idle connections
                if request.method.decode() not in REPEATABLE:
                    raise
        channel = Channel(h11.CLIENT, await self._connect())
        return channel, await _exchange(channel, request, body)


async def _exchange(channel: Channel, request: h11.Request, body: Body) -> Answer:
    try:
        if body is None or isinstance(body, bytes):
            await channel.send(request, h11.Data(body or b""), h11.EndOfMessage())
            return await _answer(channel)
        async with while_sending(_send_file(channel, request, body)):
            return await _answer(channel)  # who answers before it has all of the file does not want the rest
    except BaseException:
        channel.abort()
        raise


async def _send_file(channel: Channel, request: h11.Request, file: Readable) -> None:
    try:
        await channel.send(request)
        while piece := await asyncio.to_thread(file.read, READ_AHEAD):
            await channel.send_content(piece)
        await channel.send(h11.EndOfMessage())
    except OSError:
        channel.abort()  # ends the wait for an answer
        raise


async def _answer(channel: Channel) -> Answer:
    while isinstance(event := await channel.receive(), h11.InformationalResponse):
        pass
    assert isinstance(event, h11.Response), event
    return Answer(event, channel)
