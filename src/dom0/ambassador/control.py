"""The two sockets of an ambassador: one line of JSON a request and an answer, and State after every change.

Only their owner may open them. A line is bounded and strict; what is not understood is refused and the next line
counts again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from dom0.ambassador.forwarder import Forwarder
from dom0.ambassador.messages import ErrorAnswer, Request, State
from dom0.ambassador.report import Reporter
from dom0.ambassador.requests import Requests
from dom0.errors import Dom0Error, UsageError
from dom0.unix_socket import listen
from dom0.wording import excerpt

LARGEST_LINE = 1024 * 1024  # bytes: the agent's findings for thousands of listeners
SLOWEST_READER = 10.0  # seconds
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def control(requests: Requests, path: Path) -> AsyncIterator[None]:
    """Answer requests at `path` until the block ends."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await _line(reader):
            await _send(writer, await _answer(requests, line))

    async with _listening(path, talk):
        yield


@contextlib.asynccontextmanager
async def watch(forwarder: Forwarder, reporter: Reporter, path: Path) -> AsyncIterator[None]:
    """Send State at `path`, at once and after every change, until the block ends."""

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last: State | None = None
        while True:
            looks, state = forwarder.looks, reporter.state()
            if state != last:
                await _send(writer, state)
                last = state
            await forwarder.look_after(looks)

    async with _listening(path, tell):
        yield


async def _answer(requests: Requests, line: bytes) -> Any:
    try:
        if len(line) > LARGEST_LINE:
            raise UsageError(f"request: is longer than {LARGEST_LINE} bytes")
        request: Request = msgspec.json.decode(line, type=Request)
        return await requests.answer(request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message, hint = f"request: {excerpt(str(error))}", "one JSON document a line"
        return ErrorAnswer(error=message, hint=hint, exit_code=UsageError.exit_code)
    except Dom0Error as error:
        return ErrorAnswer(error=error.message, hint=error.hint, exit_code=error.exit_code)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Empty at the end. In place of a line that is too long, once it is read: spaces, more than LARGEST_LINE."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        pass
    dropped = 0
    while True:
        chunk = await reader.read(65536)
        dropped += len(chunk)
        if not chunk or b"\n" in chunk:
            return b" " * (LARGEST_LINE + 1) if dropped else b""


async def _send(writer: asyncio.StreamWriter, document: Any) -> None:
    writer.write(msgspec.json.encode(document) + b"\n")
    async with asyncio.timeout(SLOWEST_READER):
        await writer.drain()


@contextlib.asynccontextmanager
async def _listening(path: Path, connected: Connected) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await connected(reader, writer)
        except (OSError, asyncio.CancelledError):  # TimeoutError is one: nobody reads
            pass
        finally:
            tasks.discard(task)
            writer.close()

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = await asyncio.start_unix_server(serve, sock=listen(path, mode=0o600), limit=LARGEST_LINE)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(path.unlink, missing_ok=True)
