"""One connection that speaks HTTP/1.1: h11 decides what may be said, asyncio carries it. Both ends are made of it."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterable

import h11

READ_AHEAD = 64 << 10  # bytes
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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


class Channel:
    """h11's events over a pair of streams."""

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], streams: Streams) -> None:
        self._state = h11.Connection(role)
        self._reader, self._writer = streams
        self._has_ended = False  # the other end's bytes, all read
        self.has_left = False  # see `leave`
        self.is_last = False  # of a server: whether the answer is to say that no other one follows

    @property
    def is_gone(self) -> bool:
        """Whether the other end has closed."""
        return self._reader.at_eof() or self._writer.is_closing()

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
        return self._state.their_state is h11.SEND_BODY

    async def receive(self) -> object:
        """The next event, of h11's types. Raises Malformed, and ConnectionError for a message that is cut off."""
        while True:
            try:
                event = self._state.next_event()
            except h11.RemoteProtocolError as error:
                if self._has_ended:
                    raise ConnectionResetError("closed in the middle of a message") from error
                raise Malformed(str(error), error.error_status_hint) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._reader.read(READ_AHEAD)
            self._has_ended = not data
            self._state.receive_data(data)

    async def send(self, *events: h11.Event) -> None:
        """Waits while the other end does not keep up. Raises ConnectionError."""
        self._writer.write(b"".join(self._state.send(event) or b"" for event in events))
        await self._writer.drain()

    async def send_continue(self) -> None:
        """If the client sends its body only when it is told to."""
        if self._state.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))

    def leave(self) -> tuple[bytes, Streams]:
        """The streams, which carry something else than HTTP from now on, and what has been read of that."""
        self.has_left = True
        return self._state.trailing_data[0], (self._reader, self._writer)

    def begin_next(self) -> bool:
        """Make ready for another exchange, if both ends have said all of this one and go on. Else it can be closed."""
        if self.is_gone or not self._state.our_state is self._state.their_state is h11.DONE:
            return False
        self._state.start_next_cycle()
        return True

    def abort(self) -> None:
        """Close without sending what waits to be sent."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Raises OSError."""
        self._writer.close()
        await self._writer.wait_closed()
