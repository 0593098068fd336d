"""Answers HTTP on a socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote

import h11
import msgspec

from dom0.http.channel import READ_AHEAD, Channel, Headers, Malformed, PeerCredentials

if TYPE_CHECKING:
    import ssl

SILENCE = 60.0  # seconds without a byte, of a request or between two of them
HANDSHAKE = 10.0  # seconds for that of TLS
LINGER = 10.0  # seconds to read what a client still sends after its answer
BACKLOG = 128
GONE_WITHIN = 5.0  # seconds until a client that has gone is noticed where nothing is sent to it
JSON = "application/json"
NO_CONTENT = 204

T = TypeVar("T")
log = logging.getLogger(__name__)


class HttpError(Exception):
    """A request that is answered with a status of HTTP's own, and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Gone(ConnectionAbortedError):
    """Nobody waits for the answer any more."""


class Request:
    """`path` and `query` are unquoted; of `captured` see `route`."""

    def __init__(self, head: h11.Request, channel: Channel) -> None:
        self.method = head.method.decode("ascii")
        self.headers = Headers(head.headers)
        raw_path, _, query = head.target.decode("latin-1").partition("?")
        self.parts = tuple(unquote(part) for part in raw_path.split("/"))
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.captured: Mapping[str, str] = {}
        self._channel = channel
        self._held: bytes | None = None

    @property
    def path(self) -> str:
        return "/".join(self.parts)

    @property
    def has_body(self) -> bool:
        return bool(self.headers.all("Transfer-Encoding")) or self.headers.get("Content-Length") not in ("", "0")

    @property
    def peer(self) -> PeerCredentials | None:
        """Who asks, where the kernel says it."""
        return self._channel.peer

    @property
    def address(self) -> str:
        """Of the host that asks."""
        return self._channel.address

    @property
    def reached(self) -> str:
        """The address of ours that it asks."""
        return self._channel.reached

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self._channel.is_gone

    def prove(self, *, is_known: bool) -> None:
        """Whether its connection is of somebody who is known: see `serve`."""
        self._channel.is_proved = is_known

    async def read(self, limit: int) -> bytes:
        """The body, once. Raises HttpError for one of more than `limit` bytes, else as Channel does."""
        if self._held is not None:
            return self._held
        await self._channel.send_continue()
        body = bytearray()
        while isinstance(event := await _next(self._channel), h11.Data):
            body += event.data
            if len(body) > limit:
                raise HttpError(413, "Request Entity Too Large")
        return bytes(body)

    async def hold(self, limit: int) -> None:
        """Wait until the body has come, for whoever reads it then. Raises as `read` does."""
        self._held = await self.read(limit)


class Response(msgspec.Struct, frozen=True):
    """`body` is all of it, or pieces that come: as many bytes as a Content-Length in `headers` says. `takes` gets the
    connection once the head is sent, in place of a body: what is said on it from then on, in chunks and both ways, is
    up to whoever has it, and so is its end. It is counted no more.
    """

    body: bytes | AsyncGenerator[bytes] = b""
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = False  # the connection
    takes: Callable[[Channel], None] | None = None


class Refusal(msgspec.Struct, frozen=True):
    """`message`: where: what is wrong; `hint`: what to do."""

    message: str
    hint: str


Handler = Callable[[Request], Awaitable[Response]]


def route(routes: Mapping[str, Handler]) -> Handler:
    """A handler that passes a request on by `METHOD /path/{name}`; a name stands for one part of the path.

    It raises HttpError where there is none.
    """
    table = [(method, path.split("/"), handler) for key, handler in routes.items() for method, path in [key.split()]]

    async def handle(request: Request) -> Response:
        found = {
            method: (parts, handler)
            for method, parts, handler in table
            if len(parts) == len(request.parts)
            and all(
                part == value or (part.startswith("{") and value)
                for part, value in zip(parts, request.parts, strict=True)
            )
        }
        if not found:
            raise HttpError(404, "Not Found")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in found:
            raise HttpError(405, "Method Not Allowed")
        parts, handler = found[method]
        named = zip(parts, request.parts, strict=True)
        request.captured = {part[1:-1]: value for part, value in named if part.startswith("{")}
        return await handler(request)

    return handle


@asynccontextmanager
async def serve(
    handler: Handler,
    where: Path | socket.socket,
    *,
    most: int = sys.maxsize,
    most_each: int = sys.maxsize,
    most_unproved: int | None = None,
    beyond: Handler | None = None,
    admits: Callable[[str], bool] | None = None,
    unread: float | None = None,
    end_within: float = 1.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Callable[[], int]]:
    """Answer on the socket that is made at a path, or on one that listens, until the block ends; what is answered then
    has some seconds more. The block gets what tells how many connections there are.

    `beyond` answers on connections that come while there are `most`, or `most_each` of the same address; without one
    they are closed, and so are those of addresses that `admits` is false for. `unread`: seconds that a client may leave
    what is sent to it unread.
    """
    conversations = _Conversations(handler, most, most_each, most_unproved, beyond, admits, unread, tls)
    if isinstance(where, Path):
        server = await asyncio.start_unix_server(conversations.begin, where, limit=READ_AHEAD, backlog=BACKLOG)
    else:
        server = await asyncio.start_server(conversations.begin, sock=where, limit=READ_AHEAD, backlog=BACKLOG)
    try:
        yield conversations.count
    finally:
        await stop_accepting(server)
        await conversations.end(end_within)


async def stop_accepting(server: asyncio.Server) -> None:
    """Close `server`, but not before each connection that it has accepted is one of its conversations.

    asyncio leaves those open until they are garbage (python/cpython#109564): their clients would wait. The last of them
    takes three turns of the loop.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening)
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()


class _Conversations:
    """One for each connection."""

    def __init__(
        self,
        handler: Handler,
        most: int,
        most_each: int,
        most_unproved: int | None,
        beyond: Handler | None,
        admits: Callable[[str], bool] | None,
        unread: float | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._handler = handler
        self._most = most
        self._most_each = most_each
        self._most_unproved = most_unproved
        self._beyond = beyond
        self._admits = admits
        self._unread = unread
        self._tls = tls
        self._tasks: dict[asyncio.Task[None], Channel] = {}  # the oldest first
        self._closing = set[asyncio.Task[None]]()  # and counted no more
        self._each = Counter[str]()

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(h11.SERVER, (reader, writer))
        if self._admits is not None and not self._admits(channel.address):
            channel.abort()
            return
        address = channel.address
        if self._most_unproved is not None and self._is_full(address):
            self._close_unproved(address)
        handler = self._beyond if self._is_full(address) else self._handler
        if handler is None:
            channel.abort()
            return
        task = asyncio.get_running_loop().create_task(_converse(channel, handler, self._unread, self._tls))
        self._tasks[task] = channel
        self._each[address] += 1
        task.add_done_callback(self._end)

    def count(self) -> int:
        return len(self._tasks)

    def _is_full(self, address: str) -> bool:
        """Whether one more of this address is too many."""
        if self.count() >= self._most or self._each[address] >= self._most_each:
            return True
        return self._most_unproved is not None and len(self._unproved()) >= self._most_unproved

    def _unproved(self) -> list[asyncio.Task[None]]:
        return [task for task, channel in self._tasks.items() if not channel.is_proved]

    def _close_unproved(self, address: str) -> None:
        """One, if there is any: the oldest of this address where that has too many, else of the one that has the most.

        So who has few addresses closes connections of his own.
        """
        unproved = self._unproved()
        each = Counter(self._tasks[task].address for task in unproved)
        if self._each[address] < self._most_each:
            address = max(each, key=each.__getitem__, default="")
        for task in unproved:
            if self._tasks[task].address == address:
                self._closing.add(task)
                self._forget(task).abort()
                task.cancel()
                return

    def _end(self, task: asyncio.Task[None]) -> None:
        if task in self._closing:
            self._closing.remove(task)
        elif not (channel := self._forget(task)).has_left:
            channel.abort()

    def _forget(self, task: asyncio.Task[None]) -> Channel:
        channel = self._tasks.pop(task)
        self._each[channel.address] -= 1
        if not self._each[channel.address]:
            del self._each[channel.address]
        return channel

    async def end(self, within: float) -> None:
        for task, channel in self._tasks.items():
            if channel.is_idle:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._closing, return_exceptions=True)


async def _converse(channel: Channel, handler: Handler, unread: float | None, tls: ssl.SSLContext | None) -> None:
    try:
        if tls is not None:  # here, so that who shakes no hands is counted with the others
            await channel.encrypt(tls, within=HANDSHAKE)
        while await _exchange(channel, handler, unread) and channel.begin_next():
            pass
        if not channel.has_left:
            async with asyncio.timeout(unread):
                await channel.close()
    except OSError:  # the client has gone, or says nothing
        pass
    except Exception:
        log.exception("an answer is cut off")


async def _exchange(channel: Channel, handler: Handler, unread: float | None) -> bool:
    """One request and its answer; whether there was one that made sense."""
    try:
        head = await _next(channel)
        if not isinstance(head, h11.Request):
            return False
        request = Request(head, channel)
        await _send(channel, request.method, await _respond(request, handler), unread)
    except Malformed as error:
        if channel.owes_answer:
            await _send(channel, "", refusal(error.status, str(error)), unread)
        return False
    if channel.has_left:
        return False
    await channel.skip_rest(LINGER)
    return True


async def _respond(request: Request, handler: Handler) -> Response:
    try:
        return await handler(request)
    except HttpError as error:
        return refusal(error.status, error.reason)
    except (Malformed, ConnectionError):  # of the request's body
        raise
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return refusal(500, "Internal Server Error")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. It is ended when the client has gone, who is missed by nobody that has nothing to send; then
    it raises Gone. One that has said all may still listen (`nc -N`): it gets what is there before that is looked at.
    """
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait([task], timeout=GONE_WITHIN))[0]:
            if request.is_gone:
                raise Gone
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def while_asked(request: Request, parts: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """`parts`, until the client has gone."""
    async with aclosing(parts):
        while True:
            try:
                part = await unless_gone(request, _next_of(parts))
            except Gone:
                return
            if part is None or request.is_gone:
                return
            yield part


async def _next_of(parts: AsyncGenerator[T]) -> T | None:
    return await anext(parts, None)


def refusal(status: int, message: str, hint: str = "") -> Response:
    return Response(msgspec.json.encode(Refusal(message, hint)), status)


async def _next(channel: Channel) -> object:
    try:
        async with asyncio.timeout(SILENCE):
            return await channel.receive()
    except TimeoutError as error:
        raise ConnectionAbortedError(f"nothing came for {SILENCE:g} s") from error


async def _send(channel: Channel, method: str, response: Response, unread: float | None) -> None:
    headers = [*response.headers, *([("Connection", "close")] if response.closes else [])]
    if response.status != NO_CONTENT:
        headers.append(("Content-Type", response.content_type))
        if isinstance(response.body, bytes) and response.takes is None:
            headers.append(("Content-Length", str(len(response.body))))
    encoded = [
        (name.encode(), value.encode("latin-1")) for name, value in headers
    ]  # as they are read: some are passed on
    head = h11.Response(status_code=response.status, headers=encoded)
    if response.takes is not None:
        async with asyncio.timeout(unread):
            await channel.send(head)
        channel.has_left = True
        response.takes(channel)
        return
    if isinstance(response.body, bytes):
        data = h11.Data(b"" if method == "HEAD" else response.body)
        async with asyncio.timeout(unread):
            await channel.send(head, data, h11.EndOfMessage())
        return
    async with aclosing(response.body) as pieces:
        async with asyncio.timeout(unread):
            await channel.send(head)
        async for piece in pieces:
            if method == "HEAD":
                break
            async with asyncio.timeout(unread):
                await channel.send_content(piece)
    await channel.send(h11.EndOfMessage())
