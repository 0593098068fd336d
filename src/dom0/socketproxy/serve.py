"""The socket of one scope: accepts, reads one request after the other, answers."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import h11
from msgspec.structs import replace

from dom0.engine import bodies
from dom0.engine.bodies import Body
from dom0.errors import UsageError
from dom0.http.channel import READ_AHEAD, Channel, Malformed
from dom0.socketproxy import budget, gate, head, pipe, registry, strict, table
from dom0.socketproxy.context import Context, Document
from dom0.socketproxy.refusal import NOT_FOUND, TOO_LARGE, Refused
from dom0.socketproxy.refusals import Refusal, Refusals

SILENCE = 60.0  # seconds for a whole request, and between two of them
LARGEST_BODY = 1 << 20  # bytes, of a JSON body
LINGER = 5.0  # seconds for what a client still sends when it has been refused
FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(context: Context, path: Path, *, gid: int = -1, cgroup_parent: str = "") -> AsyncIterator[None]:
    """Answer on a socket at `path` (mode 0660, group `gid`) until the block ends.

    What the scope may use is limited before. `cgroup_parent`: see `budget.group_of`. Raises UsageError, OSError.
    """
    await _check_free(path)
    await context.upstream.negotiate()
    group = await budget.provide(context.upstream, context.scope, context.grants.budget, cgroup_parent)
    context = replace(context, cgroup_parent=group)
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = path.with_name(f".{path.name}.new")
    refusals = Refusals(registry.directory_of(context.scope.name))
    conversations = _Conversations(replace(context, refusals=refusals))
    server = await asyncio.start_unix_server(conversations.begin, unnamed, limit=READ_AHEAD)
    try:
        os.chown(unnamed, -1, gid)
        unnamed.chmod(0o660)
        unnamed.replace(path)  # complete before it has its name
        with registry.registered(context, path):
            yield
    finally:
        server.close()
        await asyncio.to_thread(path.unlink, missing_ok=True)
        await conversations.end()
        refusals.close()
        await context.upstream.close()


async def _check_free(path: Path) -> None:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    writer.close()
    raise UsageError(f"{path}: another process serves this socket", hint="end that one, or choose another: --listen")


class _Conversations:
    """One for each connection."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._context.grants.connections:
            writer.write(FULL)
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(_converse(Channel(h11.SERVER, (reader, writer)), self._context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _converse(client: Channel, context: Context) -> None:
    try:
        while await _exchange(client, context) and client.begin_next():
            pass
        await client.close()
    except (OSError, Malformed):  # the client has gone, says nothing, or an answer is cut off; TimeoutError is one
        pass
    except Exception:  # a defect of ours: nothing more passes
        log.exception("%s: a request is cut off", context.scope.path)
    finally:
        client.abort()


async def _exchange(client: Channel, context: Context) -> bool:
    """One request and its answer; whether there can be another one. Raises OSError, Malformed."""
    async with asyncio.timeout(SILENCE):
        request = await client.receive()
    if not isinstance(request, h11.Request):
        return False
    try:
        answer = await _answer(client, request, context)
    except Malformed as error:
        answer = Document({"message": str(error)}, status=error.status)
    except Refused as refused:
        _note(context, request, refused)
        answer = Document({"message": refused.message}, status=refused.status)
    if answer is None:
        return not client.has_left
    unread = client.has_unread
    await pipe.send(client, answer, method=request.method.decode("latin-1"), closes=unread)
    if unread:
        await _let_finish(client)
    return not unread


def _note(context: Context, request: h11.Request, refused: Refused) -> None:
    if refused.status == NOT_FOUND and refused.grant is None:  # programs ask for what they are about to make
        return
    log.info("%s: refused: %s", context.scope.path, refused.message)
    if context.refusals:
        context.refusals.note(
            Refusal(
                at=time.time(),
                method=request.method.decode("latin-1"),
                path=request.target.decode("latin-1").partition("?")[0],  # parameters can be secrets
                message=refused.message,
                field=refused.field,
                value=refused.value,
                grant=refused.grant,
            )
        )


async def _answer(client: Channel, request: h11.Request, context: Context) -> Document | None:
    """None where the Engine's answer has been passed on. Raises Refused, Malformed, OSError."""
    read = head.read(request, context.upstream.api)
    endpoint, asked = table.find(read)
    archive = endpoint.body is table.Archive
    if not archive:
        asked = replace(asked, body=await _read_body(client, endpoint))
    handler = context.recording.observe(endpoint.handler) if context.recording else endpoint.handler
    with gate.making(context.scope.name) if endpoint.makes else nullcontext():
        answer = await handler(context, asked)
        if isinstance(answer, Document):
            return answer
        await pipe.carry(client, answer, context, upgrade=read.upgrade == "tcp", archive=archive)
        return None


async def _read_body(client: Channel, endpoint: table.Endpoint) -> Body | None:
    await client.send_continue()
    raw = bytearray()
    async with asyncio.timeout(SILENCE):
        while isinstance(event := await client.receive(), h11.Data):
            raw += event.data
            if len(raw) > LARGEST_BODY:
                raise Refused(TOO_LARGE, f"the body has more than {LARGEST_BODY} bytes")
    model = endpoint.body
    assert issubclass(model, Body)
    body = strict.read(bytes(raw), model)
    return None if model is bodies.Empty else body


async def _let_finish(client: Channel) -> None:
    """Read what is still sent: who cannot send all of it may not look for an answer."""
    try:
        async with asyncio.timeout(LINGER):
            while client.has_unread:
                await client.receive()
    except (TimeoutError, Malformed):
        pass
