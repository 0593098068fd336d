"""Requests to an ambassador and its answers, by a command in its container, where alone its control socket is.

One line of JSON each way; the documents are in dom0.ambassador.messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol, TypeVar

import msgspec

from dom0.ambassador.client import decode
from dom0.ambassador.messages import CONTROL, WATCH, Request, State
from dom0.engine.frames import LineSplitter, Malformed
from dom0.engine.protocol import Engine
from dom0.errors import Conflict, Dom0Error, EngineError, EngineUnreachable, NotFound

LONGEST_REQUEST = 100 * 1024  # bytes; Linux takes 128 KiB in one argument
LONGEST_ANSWER = 64 << 20  # bytes; a flow has about 400
PATIENCE = 24 * 3600  # seconds that socat waits for an answer: a rewire may hold for long
SILENCE = 3600  # seconds; an older watcher's socat ends then at the latest, should its agent have been killed

T = TypeVar("T")


class Unanswered(Dom0Error):
    """The ambassador cannot be asked; the message goes on where its name ends."""


class Talk(Protocol):
    """`Conversation`, or what tests have in its place. References are container IDs."""

    async def ask(self, container_id: str, request: Request, answer: type[T]) -> T:
        """Raises EngineUnreachable, Unanswered, or Dom0Error with the ambassador's own words."""
        ...

    def watch(self, container_id: str) -> AsyncGenerator[State, None]:
        """The state now, and again after every change. Ends when the ambassador ends it; raises as `ask`."""
        ...


class Conversation:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ask(self, container_id: str, request: Request, answer: type[T]) -> T:
        line = msgspec.json.encode(request)
        if len(line) > LONGEST_REQUEST:
            raise Dom0Error(f"a request of {len(line)} bytes is longer than {LONGEST_REQUEST}")
        # It is an argument: an exec of the Engine has no input of its own without taking over the connection.
        script = f'printf "%s\\n" "$1" | exec socat -t {PATIENCE} - UNIX-CONNECT:{CONTROL}'
        argv = ["sh", "-c", script, "sh", line.decode()]
        async with contextlib.aclosing(self._lines(container_id, argv)) as lines:
            async for said in lines:
                return decode(said, answer)
        raise Unanswered("the connection closed without an answer")

    async def watch(self, container_id: str) -> AsyncGenerator[State, None]:
        argv = ["socat", "-u", "-T", str(SILENCE), f"UNIX-CONNECT:{WATCH}", "-"]
        async with contextlib.aclosing(self._lines(container_id, argv)) as lines:
            async for line in lines:
                yield decode(line, State)

    async def _lines(self, container_id: str, argv: list[str]) -> AsyncGenerator[bytes, None]:
        lines = LineSplitter(LONGEST_ANSWER)
        try:
            async with contextlib.aclosing(self._engine.exec_stream(container_id, argv)) as pieces:
                async for piece in pieces:
                    for line in lines.feed(piece):
                        yield line
        except Malformed as error:
            raise Unanswered(f"its answer makes no sense: {error}") from error
        except EngineUnreachable:
            raise
        except (NotFound, Conflict) as error:
            raise Unanswered("it does not run") from error
        except EngineError as error:
            raise Unanswered("nobody in it listens") from error
