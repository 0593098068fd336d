"""The agent's API on its unix socket; `status` and `ambassador_status` describe its documents and paths.

Only root and the socket's group may open it. Bodies are small and strict; what is not understood is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from dom0.agent import asked_by
from dom0.agent.ambassador_status import Rewired
from dom0.agent.ambassadors import Ambassadors
from dom0.agent.events import Entry, EventsRequest, Kind, actor
from dom0.agent.file_status import FilesPlanRequest, FilesRequest
from dom0.agent.machine import Machine
from dom0.agent.progress import Changes
from dom0.agent.state_files import Trial
from dom0.agent.status import (
    LARGEST_PROJECT,
    CurrentRequest,
    LogsRequest,
    Progress,
    RollbackRequest,
    TryRequest,
    UpRequest,
    Verb,
    WatchRequest,
)
from dom0.agent.unaccepted import EXHAUSTED, Unaccepted
from dom0.ambassador.messages import Flows, Rewire, Undo
from dom0.errors import Busy, Dom0Error, EngineError, ProjectError, UsageError
from dom0.http import server
from dom0.http.server import Handler, HttpError, Request, Response
from dom0.http.web_pages import ON_UNIX_SOCKET, check_request
from dom0.names import Access

LARGEST_BODY = 64 * 1024  # bytes
HINT = "see docs/reference/api.md"
STATUSES = {UsageError.exit_code: 400, ProjectError.exit_code: 400, Busy.exit_code: 409}
OTHER_STATUS = 500
LINES = "application/x-ndjson"
WATCH_AT_MOST_EVERY = 0.2  # seconds
PAGE = 1000  # events in an answer
LONGEST_NUMBER = 9  # digits
T = TypeVar("T")


@contextlib.asynccontextmanager
async def serve(machine: Machine, ambassadors: Ambassadors, path: Path, *, gid: int) -> AsyncIterator[None]:
    """Answer on the socket at `path`, and on one beside it for each lesser access, until the block ends.

    All have mode 0660 and group `gid`.
    """
    asyncio.get_running_loop().set_exception_handler(Unaccepted())
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    api = _Api(machine, ambassadors)
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half, eighth = max(3, descriptors // 2), max(1, descriptors // 8)  # the other half is for the machine
    async with contextlib.AsyncExitStack() as stack:
        for access in Access:
            socket = path if access is Access.ALL else path.with_name(access.socket)
            most = half - 2 * eighth if access is Access.ALL else eighth
            handler = partial(_answer, server.route(api.answered(access)))
            unnamed = socket.with_name(f".{socket.name}.new")
            await stack.enter_async_context(server.serve(handler, unnamed, most=most, beyond=_too_many))
            # Complete before it has its name: nobody meets it half-made, nor an old one in its place.
            await asyncio.to_thread(os.chown, unnamed, -1, gid)
            await asyncio.to_thread(unnamed.chmod, 0o660)
            await asyncio.to_thread(unnamed.replace, socket)
        yield


async def _answer(handler: Handler, request: Request) -> Response:
    """Errors are documents with the status that says whose fault it is."""
    try:
        check_request(request, ON_UNIX_SOCKET)
        return await handler(request)
    except HttpError as error:  # of a web page, no such path, another method, a body that is too large
        return server.refusal(error.status, f"{request.path}: {error.reason}", HINT)
    except Dom0Error as error:
        return server.refusal(STATUSES.get(error.exit_code, OTHER_STATUS), error.message, error.hint)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        return await _too_many(request)


async def _too_many(_request: Request) -> Response:
    busy = Busy("dom0: too many requests at once", hint="end some of them: dom0 status --watch")
    return replace(server.refusal(STATUSES[Busy.exit_code], busy.message, busy.hint), closes=True)


def _document(value: object) -> Response:
    return Response(msgspec.json.encode(value))


async def _read(request: Request, type_: type[T], limit: int = LARGEST_BODY) -> T:
    """An empty body means all defaults. Raises UsageError, HttpError."""
    body = await request.read(limit) or b"{}"
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{request.path}: {error}", hint=HINT) from error


def _number(request: Request) -> int:
    """Of the generation in the path. Raises UsageError."""
    number = request.captured["number"]
    if not (number.isascii() and number.isdecimal() and len(number) <= LONGEST_NUMBER):
        raise UsageError(f"{request.path}: that is no number of a generation", hint="dom0 history has them")
    return int(number)


def _parameters(request: Request, type_: type[T]) -> T:
    """Raises UsageError."""
    try:
        return msgspec.convert(request.query, type_, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{request.path}: {error}", hint=HINT) from error


class _Api:
    def __init__(self, machine: Machine, ambassadors: Ambassadors) -> None:
        self._machine = machine
        self._journal = machine.journal
        self._noted = Changes()  # in the journal
        self._journal.told = self._noted.tell
        self._files = machine.files
        self._ambassadors = ambassadors

    def answered(self, access: Access) -> Mapping[str, Handler]:
        """By ROUTES, on the socket of that access."""
        return {
            key: partial(self._change, access, route) if key.startswith("POST") else partial(route.handler, self)
            for key, route in ROUTES.items()
            if route.access <= access
        }

    async def _change(self, access: Access, route: Route, request: Request) -> Response:
        """What becomes of it is noted as done by whoever asks; the journal has that it was, and why it was refused."""
        asking = asked_by.say(request.peer, self._machine.container_ids)
        before = actor.set(f"{asking} on the page" if access is Access.OPERATE else asking)
        subject, asked_of = route.command, request.captured.get("service")
        if asked_of and any(one.service == asked_of for one in self._machine.status().services):
            subject = f"{subject} {asked_of}"  # and no name that somebody has made up
        try:
            if route.command:
                self._journal.note(Kind.COMMAND, subject, " ".join([route.command, *request.captured.values()]))
            return await route.handler(self, request)
        except (Dom0Error, HttpError) as error:
            if route.command:
                self._journal.note(Kind.REFUSED, subject, f"{subject}: refused", str(error))
            raise
        finally:
            actor.reset(before)

    async def status(self, _request: Request) -> Response:
        return _document(self._machine.status())

    async def history(self, _request: Request) -> Response:
        return _document(self._machine.history())

    async def differences(self, request: Request) -> Response:
        return _document(await asyncio.to_thread(self._machine.differences, _number(request)))

    async def plan_rollback(self, request: Request) -> Response:
        return _document(await self._machine.plan_rollback(_number(request)))

    async def logs(self, request: Request) -> Response:
        lines = self._machine.follow_logs(_parameters(request, LogsRequest))

        async def encoded() -> AsyncGenerator[bytes]:
            async with contextlib.aclosing(lines):
                with contextlib.suppress(EngineError):  # it was removed meanwhile, or the Engine has ended
                    async for some in lines:
                        yield b"".join(map(_line, some))

        return Response(server.while_asked(request, encoded()), content_type=LINES)

    async def watch(self, request: Request) -> Response:
        asked = _parameters(request, WatchRequest)
        return Response(self._statuses(request, asked.repeat), content_type=LINES)

    async def _statuses(self, request: Request, repeat: float) -> AsyncGenerator[bytes]:
        clock = asyncio.get_running_loop().time
        while not request.is_gone:
            seen, not_before = self._machine.changed.count, clock() + WATCH_AT_MOST_EVERY
            yield _line(self._machine.status())
            await _await_news(request, self._machine.changed, seen, repeat)
            await asyncio.sleep(not_before - clock())

    async def events(self, request: Request) -> Response:
        asked = _parameters(request, EventsRequest)
        if asked.since > self._journal.last:
            raise UsageError(
                f"{request.path}: since={asked.since}: the last one has number {self._journal.last}",
                hint="leave since out: all that are kept are told",
            )
        if asked.follow:
            return Response(self._follow(request, asked.since, asked.tail), content_type=LINES)
        try:
            page = await asyncio.to_thread(self._read(asked.tail), asked.since, asked.tail or PAGE)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            message = f"{self._journal.directory}: cannot be read: {error.strerror}"
            raise Dom0Error(message, hint="mend the disk: dmesg") from error
        return Response(b"".join(map(_line, page)), content_type=LINES)

    def _read(self, tail: int) -> Callable[[int, int], list[Entry]]:
        return self._journal.read_last if tail else self._journal.read

    async def _follow(self, request: Request, since: int, tail: int) -> AsyncGenerator[bytes]:
        while not request.is_gone:
            seen = self._noted.count
            while page := await asyncio.to_thread(self._read(tail), since, tail or PAGE):
                yield b"".join(map(_line, page))
                since, tail = page[-1].seq, 0
            await _await_news(request, self._noted, seen)

    async def up(self, request: Request) -> Response:
        asked = await _read(request, UpRequest, LARGEST_PROJECT)
        return await _progress(self._machine.up(asked))

    async def rollback(self, request: Request) -> Response:
        asked = await _read(request, RollbackRequest)
        return await _progress(self._machine.rollback(asked.generation))

    async def try_next(self, request: Request) -> Response:
        asked = await _read(request, TryRequest)
        self._machine.try_next(Trial(dom0_image=asked.dom0_image, seconds=asked.seconds))
        return Response(status=server.NO_CONTENT)

    async def confirm(self, request: Request) -> Response:
        return _document(await self._machine.confirm((await _read(request, CurrentRequest)).generation))

    async def abort(self, request: Request) -> Response:
        return _document(await self._machine.abort((await _read(request, CurrentRequest)).generation))

    async def act(self, request: Request) -> Response:
        return _document(await self._machine.act(Verb(request.parts[-1]), request.captured["service"]))

    async def files(self, _request: Request) -> Response:
        return _document(self._files.survey())

    async def diff(self, request: Request) -> Response:
        if not (path := request.query.get("path")):
            raise UsageError(f"{request.path}: of which file? ?path= is missing", hint=HINT)
        return _document(self._files.diff(path))

    async def take(self, request: Request) -> Response:
        return _document(self._files.take((await _read(request, FilesRequest)).paths))

    async def keep(self, request: Request) -> Response:
        return _document(self._files.keep((await _read(request, FilesRequest)).paths))

    async def plan_files(self, request: Request) -> Response:
        asked = await _read(request, FilesPlanRequest, LARGEST_PROJECT)
        return _document(self._files.preview(asked.files))

    async def ambassadors(self, _request: Request) -> Response:
        return _document(self._ambassadors.status())

    async def receipts(self, request: Request) -> Response:
        return _document(await self._ambassadors.history(request.captured["name"]))

    async def flows(self, request: Request) -> Response:
        asked = _parameters(request, Flows)
        return _document(await self._ambassadors.flows(request.captured["name"], asked))

    async def rewire(self, request: Request) -> Response:
        asked = await _read(request, Rewire)
        rewired = await self._ambassadors.rewire(request.captured["name"], asked)
        return _document(rewired if asked.plan else self._rewired(request, rewired))

    async def undo(self, request: Request) -> Response:
        asked = await _read(request, Undo)
        return _document(self._rewired(request, await self._ambassadors.undo(request.captured["name"], asked)))

    def _rewired(self, request: Request, rewired: Rewired) -> Rewired:
        name, receipt = request.captured["name"], rewired.receipt
        way = f"{', '.join(receipt.before) or 'nowhere'} -> {', '.join(receipt.after) or 'nowhere'}"
        self._journal.note(Kind.REWIRED, name, f"rewire {name} {', '.join(receipt.listeners)}: {way}", receipt.cause)
        return rewired


class Route(msgspec.Struct, frozen=True):
    """`command`: what does the same in a terminal; the journal has that it was asked for."""

    access: Access
    handler: Callable[[_Api, Request], Awaitable[Response]]
    command: str = ""


ROUTES: Mapping[str, Route] = {
    "GET /v1/status": Route(Access.VIEW, _Api.status),
    "GET /v1/watch": Route(Access.VIEW, _Api.watch),
    "GET /v1/events": Route(Access.VIEW, _Api.events),
    "GET /v1/history": Route(Access.VIEW, _Api.history),
    "GET /v1/generations/{number}/differences": Route(Access.VIEW, _Api.differences),
    "GET /v1/generations/{number}/plan": Route(Access.VIEW, _Api.plan_rollback),
    "GET /v1/logs": Route(Access.VIEW, _Api.logs),
    "POST /v1/up": Route(Access.ALL, _Api.up, "dom0 up"),
    "POST /v1/rollback": Route(Access.OPERATE, _Api.rollback, "dom0 rollback"),
    "POST /v1/try": Route(Access.ALL, _Api.try_next, "dom0 try"),
    "POST /v1/confirm": Route(Access.OPERATE, _Api.confirm, "dom0 confirm"),
    "POST /v1/abort": Route(Access.OPERATE, _Api.abort, "dom0 abort"),
    "POST /v1/services/{service}/start": Route(Access.OPERATE, _Api.act, "dom0 start"),
    "POST /v1/services/{service}/stop": Route(Access.OPERATE, _Api.act, "dom0 stop"),
    "POST /v1/services/{service}/restart": Route(Access.OPERATE, _Api.act, "dom0 restart"),
    "GET /v1/files": Route(Access.ALL, _Api.files),
    "GET /v1/files/diff": Route(Access.ALL, _Api.diff),
    "POST /v1/files/take": Route(Access.ALL, _Api.take, "dom0 files take"),
    "POST /v1/files/keep": Route(Access.ALL, _Api.keep, "dom0 files keep"),
    "POST /v1/files/plan": Route(Access.ALL, _Api.plan_files),
    "GET /v1/ambassadors": Route(Access.ALL, _Api.ambassadors),
    "GET /v1/ambassadors/{name}/history": Route(Access.ALL, _Api.receipts),
    "GET /v1/ambassadors/{name}/flows": Route(Access.ALL, _Api.flows),
    "POST /v1/ambassadors/{name}/rewire": Route(Access.ALL, _Api.rewire),
    "POST /v1/ambassadors/{name}/undo": Route(Access.ALL, _Api.undo),
}
"""All that the agent answers."""


async def _await_news(request: Request, changes: Changes, seen: int, within: float = math.inf) -> None:
    """Until there was a change since `seen`, or so many seconds have passed, or the client has gone."""
    until = time.monotonic() + within
    while changes.count == seen and not request.is_gone and (within := until - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(within, server.GONE_WITHIN)):
                await changes.after(seen)


async def _progress(lines: AsyncGenerator[Progress]) -> Response:
    """The first line decides the status: a refusal before it is an ordinary error answer."""
    first = await anext(lines, None)
    if first is None:
        raise Busy("dom0: is shutting down", hint="ask again when it has started: dom0 status")

    async def encoded() -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(lines):
            yield _line(first)
            async for line in lines:
                yield _line(line)

    return Response(encoded(), content_type=LINES)


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
