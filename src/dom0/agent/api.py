"""The agent's API on its unix socket; its documents are in `status` and the modules beside it.

Only root and the socket's group may open it. Bodies are small and strict; what is not understood is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from dom0.agent import asked_by
from dom0.agent.ambassador_status import AmbassadorStatus, Lead, PlacedFlow, Rewired
from dom0.agent.ambassadors import Ambassadors
from dom0.agent.boot import last_boots
from dom0.agent.device_status import Devices, Invitation, PairRequest
from dom0.agent.events import Entry, EventsRequest, Kind, actor
from dom0.agent.file_status import DiffRequest, FileDiff, FileInfo, FilesPlanRequest, FilesRequest
from dom0.agent.machine import Machine
from dom0.agent.progress import Changes
from dom0.agent.report import difference
from dom0.agent.route import LINES, Lines, Route
from dom0.agent.scope_status import ScopeStatus
from dom0.agent.served_farms import LARGEST, ServedFarm
from dom0.agent.state_files import Trial
from dom0.agent.status import (
    LARGEST_PROJECT,
    Acted,
    CurrentRequest,
    DifferencesRequest,
    DoneRequest,
    GenerationInfo,
    LogLine,
    LogsRequest,
    Progress,
    RollbackRequest,
    Status,
    TryRequest,
    UpRequest,
    Verb,
    WatchRequest,
)
from dom0.agent.storage import StorageStatus
from dom0.agent.unaccepted import EXHAUSTED, Unaccepted
from dom0.agent.vitals import UsageStatus
from dom0.ambassador.messages import Flows, Receipt, Rewire, Undo
from dom0.errors import Busy, Dom0Error, EngineError, EngineUnreachable, ProjectError, UsageError
from dom0.host.boot import Boot
from dom0.http import server
from dom0.http.server import Handler, HttpError, Request, Response
from dom0.http.web_pages import ON_UNIX_SOCKET, check_request
from dom0.names import Access
from dom0.plan.differences import Difference
from dom0.plan.preview import Change
from dom0.unix_socket import listen

HINT = "see docs/reference/api.md"
STATUSES = {UsageError.exit_code: 400, ProjectError.exit_code: 400, Busy.exit_code: 409}
AWAY_STATUS, OTHER_STATUS = 503, 500
WATCH_EVERY = 0.2  # seconds, when one change follows another
WATCH_AT_ONCE = 3  # after a quiet time: what a change leads to comes just after it
PAGE = 1000  # events in an answer
LONGEST_NUMBER = 9  # digits
T = TypeVar("T")


@contextlib.asynccontextmanager
async def serve(
    machine: Machine, ambassadors: Ambassadors, path: Path, *, gid: int
) -> AsyncIterator[Callable[[Access, str], Handler]]:
    """Answer on the socket at `path`, and on one beside it for each lesser access, until the block ends.

    All have mode 0660 and group `gid`. The block gets what answers the same to somebody whose name is given.
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
            handler = partial(answer, server.route(api.answered(access)))
            listening = await asyncio.to_thread(listen, socket, mode=0o660, owner=(-1, gid))
            await stack.enter_async_context(server.serve(handler, listening, most=most, beyond=_too_many))
        yield lambda access, name: server.route(api.answered(access, name))


async def answer(handler: Handler, request: Request) -> Response:
    """Errors are documents with the status that says whose fault it is."""
    try:
        check_request(request, ON_UNIX_SOCKET)
        return await handler(request)
    except HttpError as error:  # of a web page, no such path, another method, a body that is too large
        return server.refusal(error.status, f"{request.path}: {error.reason}", HINT)
    except EngineUnreachable as error:  # what it was asked for before, it may have done
        return server.refusal(AWAY_STATUS, error.message, error.hint)
    except Dom0Error as error:
        return server.refusal(STATUSES.get(error.exit_code, OTHER_STATUS), error.message, error.hint)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        return await _too_many(request)


async def _too_many(_request: Request) -> Response:
    busy = Busy("dom0: too many requests at once", hint="end some of them: dom0 status --watch")
    return replace(server.refusal(STATUSES[Busy.exit_code], busy.message, busy.hint), closes=True)


def _respond(answer: object) -> Response:
    if isinstance(answer, Lines):
        documents = answer.documents
        body = _encode(documents) if isinstance(documents, Sequence) else _encode_each(documents)
        return Response(body, content_type=LINES)
    return Response(status=server.NO_CONTENT) if answer is None else Response(msgspec.json.encode(answer))


async def _encode_each(parts: AsyncGenerator[Sequence[object]]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(parts):
        async for documents in parts:
            yield _encode(documents)


def _encode(documents: Sequence[object]) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in documents)


async def _read(request: Request, type_: type[T], limit: int) -> T:
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

    def answered(self, access: Access, device: str = "") -> Mapping[str, Handler]:
        """By ROUTES, on the socket of that access, or to a device."""
        return {
            key: partial(self._change, access, device, route) if key.startswith("POST") else partial(self._look, route)
            for key, route in ROUTES.items()
            if route.access <= access
        }

    async def _look(self, route: Route, request: Request) -> Response:
        """A change goes on without who asked for it; this does not: it may wait for an Engine that does not answer."""
        return await server.unless_gone(request, self._ask(route, request))

    async def _ask(self, route: Route, request: Request) -> Response:
        if route.asks is None:
            return _respond(await route.handler(self, request))
        is_body = request.method == "POST"
        asked = await _read(request, route.asks, route.limit) if is_body else _parameters(request, route.asks)
        return _respond(await route.handler(self, request, asked))

    async def _change(self, access: Access, device: str, route: Route, request: Request) -> Response:
        """What becomes of it is noted as done by whoever asks; the journal has that it was, and why it was refused."""
        asking = f"device {device}" if device else asked_by.say(request.peer, self._machine.container_ids)
        before = actor.set(f"{asking} on the page" if access is Access.OPERATE else asking)
        subject, asked_of = route.command, request.captured.get("service")
        if asked_of and self._has_service(asked_of):
            subject = f"{subject} {asked_of}"  # and no name that somebody has made up
        try:
            if route.command:
                self._journal.note(Kind.COMMAND, subject, " ".join([route.command, *request.captured.values()]))
            return await self._ask(route, request)
        except (Dom0Error, HttpError) as error:
            if route.command:
                self._journal.note(Kind.REFUSED, subject, f"{subject}: refused", str(error))
            raise
        finally:
            actor.reset(before)

    def _has_service(self, name: str) -> bool:
        return any(one.service == name for one in self._machine.status().services)

    async def status(self, _request: Request) -> Status:
        """The machine: its generation, services and problems."""
        return self._machine.status()

    async def history(self, _request: Request) -> list[GenerationInfo]:
        """The generations that are kept, newest first."""
        return self._machine.history()

    async def differences(self, request: Request, asked: DifferencesRequest) -> list[Difference]:
        """What a generation asks for and another one, or the one made before it, does not."""
        return await asyncio.to_thread(self._machine.differences, _number(request), asked.before)

    async def plan_rollback(self, request: Request) -> list[Change]:
        """What a rollback to a generation would do."""
        return await self._machine.plan_rollback(_number(request))

    async def storage(self, _request: Request) -> StorageStatus:
        """Where the data is: volumes and who mounts them, snapshots of the home, disks."""
        return await self._machine.storage()

    async def usage(self, _request: Request) -> UsageStatus:
        """Processor, memory and network of containers and of the machine, now."""
        return await self._machine.usage()

    async def scopes(self, _request: Request) -> list[ScopeStatus]:
        """Engine sockets of orchestrators and others: what each was granted and uses, and what it was refused."""
        return await self._machine.scopes()

    async def farms(self, _request: Request) -> list[ServedFarm]:
        """Farms whose servers run on this machine, as those said last: their nodes, and what keeps them."""
        return self._machine.served_farms.list()

    async def serve_farm(self, _request: Request, asked: ServedFarm) -> None:
        """Say what there is to know of a farm, as its server; it is believed for ten minutes."""
        if self._machine.served_farms.hear(asked):
            self._machine.changed.tell()

    async def boots(self, _request: Request) -> list[Boot]:
        """What the last boots went through, the oldest first."""
        return await asyncio.to_thread(last_boots)

    async def logs(self, request: Request, asked: LogsRequest) -> Lines[LogLine]:
        """What a container of a service has printed, and prints; or the last of the lines that are searched for."""
        lines = self._machine.follow_logs(asked)

        async def until_removed() -> AsyncGenerator[list[LogLine]]:
            async with contextlib.aclosing(lines):
                try:
                    async for some in lines:
                        yield some
                except EngineError as error:  # it was removed meanwhile, or the Engine has ended
                    if asked.searches:  # cut off, so that nobody takes that for all there is
                        raise ConnectionAbortedError(error.message) from error

        return Lines(server.while_asked(request, until_removed()))

    async def watch(self, request: Request, asked: WatchRequest) -> Lines[Status | dict[str, Any]]:
        """The status now, and at every change; of each later one what is another, where differences are asked for."""
        return Lines(self._statuses(request, asked))

    async def _statuses(
        self, request: Request, asked: WatchRequest
    ) -> AsyncGenerator[list[Status | dict[str, object]]]:
        clock, before, not_before = asyncio.get_running_loop().time, None, -math.inf
        while not request.is_gone:
            seen = self._machine.changed.count
            not_before = max(not_before, clock() - (WATCH_AT_ONCE - 1) * WATCH_EVERY) + WATCH_EVERY
            status = self._machine.status()
            yield [difference(before, status) if before is not None else status]
            before = status if asked.differences else None
            await _await_news(request, self._machine.changed, seen, asked.repeat)
            await asyncio.sleep(not_before - clock())

    async def events(self, request: Request, asked: EventsRequest) -> Lines[Entry]:
        """What was done, why and by whom, the oldest first."""
        if asked.since > self._journal.last:
            raise UsageError(
                f"{request.path}: since={asked.since}: the last one has number {self._journal.last}",
                hint="leave since out: all that are kept are told",
            )
        if asked.follow:
            return Lines(self._follow(request, asked.since, asked.tail))
        try:
            return Lines(await asyncio.to_thread(self._read(asked.tail), asked.since, asked.tail or PAGE))
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            message = f"{self._journal.directory}: cannot be read: {error.strerror}"
            raise Dom0Error(message, hint="mend the disk: dmesg") from error

    def _read(self, tail: int) -> Callable[[int, int], list[Entry]]:
        return self._journal.read_last if tail else self._journal.read

    async def _follow(self, request: Request, since: int, tail: int) -> AsyncGenerator[list[Entry]]:
        while not request.is_gone:
            seen = self._noted.count
            while page := await asyncio.to_thread(self._read(tail), since, tail or PAGE):
                yield page
                since, tail = page[-1].seq, 0
            await _await_news(request, self._noted, seen)

    async def openapi(self, _request: Request) -> dict[str, Any]:
        """What can be asked, and what is answered: OpenAPI 3.1."""
        from dom0.agent.openapi import describe  # which few ask for

        return describe(ROUTES)

    async def up(self, _request: Request, asked: UpRequest) -> Lines[Progress]:
        """Take over the project of an image, and try everything again that was stopped or given up."""
        return await _progress(self._machine.up(asked))

    async def rollback(self, _request: Request, asked: RollbackRequest) -> Lines[Progress]:
        """Go back to a generation."""
        return await _progress(self._machine.rollback(asked.generation))

    async def try_next(self, _request: Request, asked: TryRequest) -> None:
        """Let the next generation of an image go back by itself unless it is confirmed."""
        self._machine.try_next(Trial(dom0_image=asked.dom0_image, seconds=asked.seconds))

    async def note_done(self, _request: Request, asked: DoneRequest) -> None:
        """Say what a command has changed that does not ask the agent to, for the journal."""
        self._journal.note(Kind.COMMAND, asked.command, asked.text)

    async def confirm(self, _request: Request, asked: CurrentRequest) -> Status:
        """Keep the generation that is on trial."""
        return await self._machine.confirm(asked.generation)

    async def abort(self, _request: Request, asked: CurrentRequest) -> Status:
        """End the change that is under way, and go back."""
        return await self._machine.abort(asked.generation)

    async def act(self, request: Request) -> list[Acted]:
        """Start, stop or restart all containers of a service."""
        return await self._machine.act(Verb(request.parts[-1]), request.captured["service"])

    async def files(self, _request: Request) -> list[FileInfo]:
        """Files of the project that the machine changed."""
        return self._files.survey()

    async def diff(self, _request: Request, asked: DiffRequest) -> FileDiff:
        """What the machine changed in a file."""
        return self._files.diff(asked.path)

    async def take(self, _request: Request, asked: FilesRequest) -> list[FileInfo]:
        """Give files the project's version."""
        return self._files.take(asked.paths)

    async def keep(self, _request: Request, asked: FilesRequest) -> list[FileInfo]:
        """Leave files the machine's version."""
        return self._files.keep(asked.paths)

    async def plan_files(self, _request: Request, asked: FilesPlanRequest) -> list[FileInfo]:
        """What placing the files of a project would do."""
        return self._files.preview(asked.files)

    async def ambassadors(self, _request: Request) -> list[AmbassadorStatus]:
        """What each ambassador forwards."""
        return self._ambassadors.status()

    async def receipts(self, request: Request) -> list[Receipt]:
        """The rewires of an ambassador, the oldest first."""
        return await self._ambassadors.history(request.captured["name"])

    async def flows(self, request: Request, asked: Flows) -> list[PlacedFlow]:
        """Connections that go through an ambassador now."""
        return await self._ambassadors.flows(request.captured["name"], asked)

    async def rewire(self, request: Request, asked: Rewire) -> Rewired:
        """Send new connections somewhere else, or say what that would concern."""
        rewired = await self._ambassadors.rewire(request.captured["name"], asked)
        return rewired if asked.plan else self._rewired(request, rewired)

    async def lead(self, request: Request, asked: Lead) -> Rewired:
        """Send new connections to a service of the project, or say what that would concern."""
        if not self._has_service(asked.service):
            raise UsageError(f"{asked.service}: no service here has this name", hint="dom0 status shows them")
        to = (f"service:{asked.service}",)
        return await self.rewire(request, Rewire(to=to, listener=asked.listener, plan=asked.plan))

    async def undo(self, request: Request, asked: Undo) -> Rewired:
        """Send new connections where they went before the last rewire."""
        return self._rewired(request, await self._ambassadors.undo(request.captured["name"], asked))

    async def devices(self, _request: Request) -> Devices:
        """Those that may look at the page over the network."""
        return self._machine.devices.status()

    async def pair(self, _request: Request, asked: PairRequest) -> Invitation:
        """A code with which one more device may look, or operate."""
        return self._machine.devices.invite(asked.name, operates=asked.operates)

    async def revoke(self, request: Request) -> Devices:
        """Let a device look no more, also at what it looks at now."""
        self._machine.devices.revoke(request.captured["name"])
        return self._machine.devices.status()

    def _rewired(self, request: Request, rewired: Rewired) -> Rewired:
        name, receipt = request.captured["name"], rewired.receipt
        way = f"{', '.join(receipt.before) or 'nowhere'} -> {', '.join(receipt.after) or 'nowhere'}"
        self._journal.note(Kind.REWIRED, name, f"rewire {name} {', '.join(receipt.listeners)}: {way}", receipt.cause)
        return rewired


ROUTES: Mapping[str, Route] = {
    "GET /v1/status": Route(Access.VIEW, _Api.status),
    "GET /v1/watch": Route(Access.VIEW, _Api.watch),
    "GET /v1/events": Route(Access.VIEW, _Api.events),
    "GET /v1/history": Route(Access.VIEW, _Api.history),
    "GET /v1/generations/{number}/differences": Route(Access.VIEW, _Api.differences),
    "GET /v1/generations/{number}/plan": Route(Access.VIEW, _Api.plan_rollback),
    "GET /v1/storage": Route(Access.VIEW, _Api.storage),
    "GET /v1/usage": Route(Access.VIEW, _Api.usage),
    "GET /v1/scopes": Route(Access.VIEW, _Api.scopes),
    "GET /v1/farms": Route(Access.VIEW, _Api.farms),
    "POST /v1/farms/served": Route(Access.ALL, _Api.serve_farm, limit=LARGEST),
    "GET /v1/boots": Route(Access.VIEW, _Api.boots),
    "GET /v1/logs": Route(Access.VIEW, _Api.logs),
    "GET /v1/openapi.json": Route(Access.VIEW, _Api.openapi),
    "POST /v1/up": Route(Access.ALL, _Api.up, "dom0 up", LARGEST_PROJECT),
    "POST /v1/rollback": Route(Access.OPERATE, _Api.rollback, "dom0 rollback"),
    "POST /v1/done": Route(Access.ALL, _Api.note_done),
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
    "POST /v1/files/plan": Route(Access.ALL, _Api.plan_files, limit=LARGEST_PROJECT),
    "GET /v1/devices": Route(Access.ALL, _Api.devices),
    "POST /v1/devices/pair": Route(Access.ALL, _Api.pair, "dom0 web pair"),
    "POST /v1/devices/{name}/revoke": Route(Access.ALL, _Api.revoke, "dom0 web revoke"),
    "GET /v1/ambassadors": Route(Access.VIEW, _Api.ambassadors),
    "GET /v1/ambassadors/{name}/history": Route(Access.VIEW, _Api.receipts),
    "GET /v1/ambassadors/{name}/flows": Route(Access.VIEW, _Api.flows),
    "POST /v1/ambassadors/{name}/rewire": Route(Access.ALL, _Api.rewire),
    "POST /v1/ambassadors/{name}/lead": Route(Access.OPERATE, _Api.lead),
    "POST /v1/ambassadors/{name}/undo": Route(Access.OPERATE, _Api.undo),
}
"""All that the agent answers."""


async def _await_news(request: Request, changes: Changes, seen: int, within: float = math.inf) -> None:
    """Until there was a change since `seen`, or so many seconds have passed, or the client has gone."""
    until = time.monotonic() + within
    while changes.count == seen and not request.is_gone and (within := until - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(within, server.GONE_WITHIN)):
                await changes.after(seen)


async def _progress(lines: AsyncGenerator[Progress]) -> Lines[Progress]:
    """The first line decides the status: a refusal before it is an ordinary error answer."""
    first = await anext(lines, None)
    if first is None:
        raise Busy("dom0: is shutting down", hint="ask again when it has started: dom0 status")

    async def all_of_them() -> AsyncGenerator[list[Progress]]:
        async with contextlib.aclosing(lines):
            yield [first]
            async for line in lines:
                yield [line]

    return Lines(all_of_them())
