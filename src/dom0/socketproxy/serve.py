"""The socket of one scope: accepts, reads one request after the other, answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext
from pathlib import Path

import h11
from msgspec.structs import replace

from dom0.engine import bodies
from dom0.engine.bodies import Body
from dom0.errors import Dom0Error
from dom0.http.channel import READ_AHEAD, Channel, Malformed
from dom0.socketproxy import budget, gate, head, hold, pipe, registrations, strict, table
from dom0.socketproxy.context import Context, Document
from dom0.socketproxy.refusal import NOT_FOUND, TOO_LARGE, Refused
from dom0.socketproxy.refusals import Refusals, RefusedRequest
from dom0.socketproxy.room import Room

SILENCE = 60.0  # seconds for a whole request, and between two of them
STOP_SEEN_WITHIN = 0.5  # seconds until what lasts is cut off when its scope is being stopped
LAST = 10.0  # seconds for what is under way when a socket is handed over
LAST_SILENCE = 2.0  # seconds for a connection then to begin with another request
RELIEF = 1.0  # seconds until the next try when there were too many open files
LARGEST_BODY = 1 << 20  # bytes, of a JSON body
LINGER = 5.0  # seconds for what a client still sends when it has been refused
FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(
    context: Context,
    path: Path,
    *,
    cgroup_parent: str = "",
    kept: socket.socket | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> AsyncIterator[None]:
    """Answer on a socket at `path` (mode 0660) until the block ends.

    What the scope may use is limited before. `cgroup_parent`: see `cgroup.group_of`. `kept`: the listening socket
    there, which outlives this: what is under way is answered then if that takes at most LAST seconds, and who has not
    been accepted waits for another one to serve. `is_wanted`: still, once its turn to begin has come. Raises Dom0Error,
    OSError.
    """
    if kept is None:
        hold.check_free(path)
    registrations.check_free(context.scope.name, path)
    async with budget.kept_meanwhile(context.upstream.socket, context.scope, context.grants.budget, cgroup_parent):
        await context.upstream.negotiate()
    refusals = Refusals(registrations.directory_of(context.scope.name))
    with ExitStack() as stack:
        with ExitStack() as locked:  # another server of it, maybe in this process, has it while it begins
            noted = await asyncio.to_thread(locked.enter_context, registrations.cgroup_of(context.scope.name))
            if not is_wanted():
                raise Dom0Error(f"{context.scope.path}: other grants have come meanwhile")
            group = budget.Provided()
            if context.observe is None:  # which is limited by nothing, and leaves no group behind
                group = await budget.provide(context.upstream, context.scope, context.grants.budget, cgroup_parent)
                noted.write(group.parent if group.driver else "")
            context = replace(context, cgroup_parent=group.parent, cgroups=group.driver, refusals=refusals)
            listener = kept or hold.listening(path)
            standing = stack.enter_context(registrations.registered(context, path))
            context = replace(context, room=Room(standing.is_alone))
        conversations = _Conversations(context, listener)
        try:
            yield
        finally:
            conversations.accept_no_more()
            listener.close()
            if kept is None:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            await conversations.end(LAST if kept else 0)
            refusals.close()
            await context.upstream.close()


class _Conversations:
    """One for each connection. Accepting is our own: asyncio's servers lose who is accepted while they are closed."""

    def __init__(self, context: Context, listener: socket.socket) -> None:
        self._context = context
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], _Conversation] = {}
        self._has_ended = False
        listener.setblocking(False)
        self._accept_more()

    def _accept_more(self) -> None:
        if not self._has_ended:
            self._loop.add_reader(self._listener, self._accept)

    def accept_no_more(self) -> None:
        self._has_ended = True
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # another process that serves it was quicker
            return
        except OSError as error:  # no descriptor is left
            log.warning("%s: connections have to wait: %s", self._context.scope.path, error)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(RELIEF, self._accept_more)
            return
        connection.setblocking(False)
        if len(self._running) >= self._context.grants.connections:
            with connection, contextlib.suppress(OSError):
                connection.send(FULL)
            return
        conversation = _Conversation(self._context)
        task = self._loop.create_task(conversation.run(connection))
        self._running[task] = conversation
        task.add_done_callback(self._running.pop)

    async def end(self, within: float) -> None:
        """Cut off what has not ended within that many seconds."""
        for conversation in self._running.values():
            conversation.end_soon()
        if self._running:
            await asyncio.wait(self._running, timeout=within)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


class _Conversation:
    """The requests of one connection."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._is_last = False  # this request, or the next
        self._silence: asyncio.Timeout | None = None  # while a request is waited for

    def end_soon(self) -> None:
        self._is_last = True
        if self._silence and not self._silence.expired():
            self._silence.reschedule(asyncio.get_running_loop().time() + LAST_SILENCE)

    async def run(self, connection: socket.socket) -> None:
        client = Channel(h11.SERVER, await asyncio.open_unix_connection(sock=connection, limit=READ_AHEAD))
        try:
            while await self._exchange(client) and client.begin_next():
                self._context.upstream.let_go()
            await client.close()
        except (OSError, Malformed):  # the client has gone, says nothing, or an answer is cut off; TimeoutError is one
            pass
        except Exception:  # a defect of ours: nothing more passes
            log.exception("%s: a request is cut off", self._context.scope.path)
        finally:
            client.abort()

    async def _exchange(self, client: Channel) -> bool:
        """One request and its answer; whether there can be another one. Raises OSError, Malformed."""
        try:
            async with asyncio.timeout(LAST_SILENCE if self._is_last else SILENCE) as self._silence:
                request = await client.receive()
        finally:
            self._silence = None
        if not isinstance(request, h11.Request):
            return False
        client.is_last = self._is_last
        try:
            answer = await _answer(client, request, self._context)
        except Malformed as error:
            answer = Document({"message": str(error)}, status=error.status)
        except Refused as refused:
            _note(self._context, request, refused)
            answer = Document({"message": refused.message}, status=refused.status)
        if answer is None:
            return not client.has_left
        unread = client.has_unread
        await pipe.send(client, answer, method=request.method.decode("latin-1"), closes=unread)
        if unread:
            await client.skip_rest(LINGER)
        return not unread


def _note(context: Context, request: h11.Request, refused: Refused) -> None:
    if refused.status == NOT_FOUND and refused.grant is None:  # programs ask for what they are about to make
        return
    if context.refusals:
        context.refusals.note(
            RefusedRequest(
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
    archive = endpoint.body is table.ArchiveBody
    if not archive:
        asked = replace(asked, body=await _read_body(client, endpoint))
    handler = context.observe(endpoint.handler) if context.observe else endpoint.handler
    with gate.making(context.scope.name) if endpoint.makes or endpoint.lasts else nullcontext():
        answer = await handler(context, asked)
        if isinstance(answer, Document):
            return answer
        context.upstream.let_go()
        carried = pipe.carry(client, answer, context, upgrade=read.upgrade == "tcp", archive=archive)
        if endpoint.lasts:
            scope = context.scope.name
            why = f"scope /{scope} is being stopped"
            await pipe.cut_off_if(lambda: gate.is_stopped(scope), carried, why, looks=STOP_SEEN_WITHIN)
        else:
            await carried
        return None


async def _read_body(client: Channel, endpoint: table.Operation) -> Body | None:
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
