"""One connection that speaks HTTP/1.1: h11 decides what may be said, asyncio carries it. Both ends are made of it."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from asyncio import sslproto
from asyncio.log import logger
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, cast

import h11
import msgspec

from dom0.http.chunked import Chunks

if TYPE_CHECKING:
    import ssl
    from logging import LogRecord

READ_AHEAD = 64 << 10  # bytes
MOST_READ = 256 << 10  # bytes at once
TLS_READ = 16 << 10  # bytes that are read at once: the longest record
_CREDENTIALS = struct.Struct("3i")  # PID, UID, GID: struct ucred of <sys/socket.h>
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# asyncio keeps a buffer for each connection as long as it is, of zeroes that were written: 256 KiB, unless told. The
# small one is also the faster one.
sslproto.SSLProtocol.max_size = TLS_READ


class Malformed(Exception):
    """The other end does not speak HTTP. `status` is what a server answers to that."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Headers:
    """Of one message. Names are found in any case."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def all(self, name: str) -> list[str]:
        return self._values.get(name.lower(), [])

    def get(self, name: str) -> str:
        """The first value, "" if there is none."""
        return next(iter(self.all(name)), "")


class PeerCredentials(msgspec.Struct, frozen=True):
    """The process at the other end of a unix socket; its PID is 0 where our /proc does not show it."""

    pid: int
    uid: int


class Channel:
    """h11's events over a pair of streams. It judges each head; what comes in chunks behind one is read past it."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], streams: Streams) -> None:
        self._role = role
        self._state = h11.Connection(role)
        self._reader, self._writer = streams
        self._ahead = b""  # what has been read, and is in nobody's hands
        self._source: socket.socket | None = None  # see `content`
        self._buffer = memoryview(b"")
        self._chunks: Chunks | None = None  # of the message that comes
        self._is_broken = False  # which is none
        self._asks_head = False  # of a client: whether the answer has no body, whatever it says
        self._has_ended = False  # the other end's bytes, all read
        self.has_left = False  # the hands of the server: see `leave`
        self.is_proved = False  # see `server.serve`
        self.is_last = False  # of a server: whether the answer is to say that no other one follows

    @property
    def is_gone(self) -> bool:
        """Whether the other end has closed."""
        return self._reader.at_eof() or self._writer.is_closing()

    @property
    def peer(self) -> PeerCredentials | None:
        """Who has connected to a server's unix socket; None: the kernel does not say."""
        connected = self._writer.get_extra_info("socket")
        if connected is None or connected.family != socket.AF_UNIX:
            return None
        packed = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(packed)
        return PeerCredentials(pid, uid)

    @cached_property
    def address(self) -> str:
        """The host at the other end; "" of a unix socket. It is kept, as a stream of TLS forgets it with its end."""
        name = self._writer.get_extra_info("peername")
        return str(name[0]) if name else ""

    @property
    def reached(self) -> str:
        """The address of ours that the other end has connected to; "" of a unix socket."""
        name = self._writer.get_extra_info("sockname")
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def is_stale(self) -> bool:
        """Of an idle client: whether the server has closed, also if the event loop has not seen it yet."""
        if self.is_gone:
            return True
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket"), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def is_idle(self) -> bool:
        """Whether no message is under way."""
        return self._state.our_state is self._state.their_state is h11.IDLE

    @property
    def takes_chunks(self) -> bool:
        """Whether the other end understands a message in chunks; HTTP/1.0 does not."""
        return self._state.their_http_version == b"1.1"

    @property
    def owes_answer(self) -> bool:
        """Whether a server has not begun the answer to what came."""
        return self._state.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def has_unread(self) -> bool:
        """Whether there is more to come of the message."""
        has_ended = self._is_broken or (self._chunks and self._chunks.has_ended)
        return self._state.their_state is h11.SEND_BODY and not has_ended

    async def encrypt(self, tls: ssl.SSLContext, *, within: float) -> None:
        """Of a server, before the first message: by TLS from now on. Raises OSError where nothing comes of it.

        asyncio logs a line of each client that says all in one piece with its end: whoever comes could fill the disk
        so.
        """
        logger.addFilter(_is_news)
        await self._writer.start_tls(tls, ssl_handshake_timeout=within)

    async def receive(self) -> object:
        """The next event, of h11's types. Raises Malformed, and ConnectionError for a message that is cut off."""
        if self._chunks:
            return await self._next_in_chunks(self._chunks)
        while True:
            try:
                event = self._state.next_event()
            except h11.RemoteProtocolError as error:
                if self._has_ended:
                    raise ConnectionResetError("closed in the middle of a message") from error
                raise Malformed(str(error), error.error_status_hint) from error
            if isinstance(event, h11.Request | h11.Response) and self._is_in_chunks(event):
                self._chunks = Chunks(self._state.trailing_data[0])
            if event is not h11.NEED_DATA:
                return event
            data = bytes(await self._read())
            self._has_ended = not data
            self._state.receive_data(data)

    def _is_in_chunks(self, head: h11.Request | h11.Response) -> bool:
        if isinstance(head, h11.Response) and (self._asks_head or head.status_code in (204, 304)):
            return False
        return any(name == b"transfer-encoding" for name, _ in head.headers)  # h11 takes no other

    async def _next_in_chunks(self, chunks: Chunks) -> h11.Data | h11.EndOfMessage:
        data: bytes | memoryview = b""
        while True:
            try:
                parts = chunks.feed(data)
            except ValueError as error:
                self._is_broken = True
                raise Malformed(str(error), 400) from error
            if parts:
                content = self._together(parts) if isinstance(data, memoryview) else b"".join(parts)
                return h11.Data(cast("bytes", content))
            if chunks.has_ended:
                return h11.EndOfMessage()
            data = await self._read()
            if not data:
                raise ConnectionResetError("closed in the middle of a message")

    def _together(self, parts: list[memoryview]) -> memoryview:
        """What was read into the buffer, moved there: memory that the kernel has to find costs more than a copy."""
        size = 0
        for part in parts:
            self._buffer[size : size + len(part)] = part
            size += len(part)
        return self._buffer[:size]

    async def _read(self) -> bytes | memoryview:
        """A view is of what is there until the next one is read."""
        if self._ahead:
            data, self._ahead = self._ahead[:READ_AHEAD], self._ahead[READ_AHEAD:]
            return data
        if self._source is None:
            return await self._reader.read(READ_AHEAD)
        await asyncio.sleep(0)  # others have their turn, however fast both ends are
        size = await asyncio.get_running_loop().sock_recv_into(self._source, self._buffer)
        return self._buffer[:size]

    async def content(self) -> AsyncGenerator[bytes | memoryview]:
        """What is still to come of the message, where it may be much. Of a plain socket.

        It is read past asyncio's streams, whose copies cost more than all else, until this is closed. A view is of what
        is there until the next part is asked for.
        """
        transport = cast("asyncio.Transport", self._writer.transport)
        with ExitStack() as stack:
            source = None
            if not self._ahead:  # else that would grow with each message of a client that does not wait for answers
                with suppress(OSError):  # where no descriptor is left it is read as always
                    source = stack.enter_context(transport.get_extra_info("socket").dup())
            if source:
                stack.callback(transport.resume_reading)
                transport.pause_reading()
                with suppress(TimeoutError):  # where nothing is there
                    async with asyncio.timeout(0):
                        self._ahead = await self._reader.read(sys.maxsize)
                transport.pause_reading()  # the reader may have resumed it
                source.setblocking(False)
                self._source, self._buffer = source, memoryview(bytearray(MOST_READ))
                stack.callback(setattr, self, "_buffer", memoryview(b""))
                stack.callback(setattr, self, "_source", None)
            while isinstance(event := await self.receive(), h11.Data):
                yield event.data

    async def skip_rest(self, within: float) -> None:
        """Read what is left of a message, for so many seconds: who cannot send all of it may not look for an answer."""
        with suppress(Malformed, TimeoutError):
            async with asyncio.timeout(within):
                while self.has_unread:
                    await self.receive()

    async def send(self, *events: h11.Event) -> None:
        """Waits while the other end does not keep up. Raises ConnectionError."""
        if isinstance(events[0], h11.Request):
            self._asks_head = events[0].method == b"HEAD"
        self._writer.write(b"".join(self._state.send(event) or b"" for event in events))
        await self._writer.drain()

    async def send_content(self, part: bytes | memoryview) -> None:
        """A part of the message's. As `send`."""
        await self.send(h11.Data(cast("bytes", part)))

    async def send_chunks(self, parts: AsyncIterator[bytes | memoryview]) -> None:
        """Parts of a message in chunks, past asyncio's streams, as `content` is read. To a plain socket. As `send`."""
        self._writer.transport.set_write_buffer_limits(0)
        await self._writer.drain()
        loop = asyncio.get_running_loop()
        with self._writer.get_extra_info("socket").dup() as target:
            target.setblocking(False)
            async for part in parts:
                if not part:  # as a chunk it would be the last one
                    continue
                pieces = (b"%x\r\n" % len(part), part, b"\r\n")
                try:
                    sent = target.sendmsg(pieces)
                except BlockingIOError:
                    sent = 0
                for piece in pieces:
                    if sent < len(piece):
                        await loop.sock_sendall(target, memoryview(piece)[sent:])
                    sent = max(0, sent - len(piece))

    async def send_continue(self) -> None:
        """If the client sends its body only when it is told to."""
        if self._state.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))

    def keep_alive(self) -> None:
        """Have a host that is gone noticed within two minutes, also where nothing is sent to it."""
        connected = self._writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("IDLE", 60), ("INTVL", 15), ("CNT", 4)):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{option}"), value)

    def leave(self) -> tuple[bytes, Streams]:
        """The streams, which carry something else than HTTP from now on, and what has been read of that."""
        self.has_left = True
        begun = self._chunks.rest if self._chunks else self._state.trailing_data[0]
        return begun + self._ahead, (self._reader, self._writer)

    def begin_next(self) -> bool:
        """Make ready for another exchange, if both ends have said all of this one and go on. Else it can be closed."""
        chunks, self._chunks = self._chunks, None
        is_whole = chunks.has_ended if chunks else self._state.their_state is h11.DONE
        if self.is_gone or not is_whole or self._state.our_state is not h11.DONE:
            return False
        if chunks is None:
            self._state.start_next_cycle()
            return True
        self._state = h11.Connection(self._role)  # to which no end of the present message was told
        self._ahead = chunks.rest + self._ahead
        return True

    def abort(self) -> None:
        """Close without sending what waits to be sent."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Raises OSError."""
        self._writer.close()
        await self._writer.wait_closed()


def _is_news(record: LogRecord) -> bool:
    """Not that a stream which is not encrypted yet would have stayed open."""
    return not str(record.msg).startswith("returning true from eof_received()")


@asynccontextmanager
async def while_sending(body: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """The block waits for the answer, after which nothing more of the body is wanted.

    Where the connection breaks because `body` was cut off, that is raised in its place.
    """
    sending = asyncio.create_task(body)
    try:
        yield
    except ConnectionError:
        if sending.done():
            await sending
        raise
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def nothing() -> AsyncGenerator[bytes]:
    """A body without a byte."""
    no_chunks: tuple[bytes, ...] = ()
    for chunk in no_chunks:
        yield chunk
