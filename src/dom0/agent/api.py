"""The agent's API on its unix socket; `status` and `ambassador_status` describe its documents and paths.

Only root and the socket's group may open it. Bodies are small and strict; what is not understood is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from dom0.agent.ambassadors import Ambassadors
from dom0.agent.file_status import FilesPlanRequest, FilesRequest
from dom0.agent.files import Files
from dom0.agent.machine import Machine
from dom0.agent.notes import Trial
from dom0.agent.status import LARGEST_PROJECT, Progress, RollbackRequest, TryRequest, UpRequest
from dom0.agent.unaccepted import EXHAUSTED, Unaccepted
from dom0.agent.web_pages import check_request
from dom0.ambassador.messages import Flows, Rewire, Undo
from dom0.errors import Busy, Dom0Error, ProjectError, UsageError

LARGEST_BODY = 64 * 1024  # bytes
HINT = "see docs/reference/api.md"
STATUSES = {UsageError.exit_code: 400, ProjectError.exit_code: 400, Busy.exit_code: 409}  # all others: 500
WATCH_AT_MOST_EVERY = 0.2  # seconds
GONE_WITHIN = 5.0  # seconds until a watcher that has gone is noticed where nothing changes
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serve(machine: Machine, ambassadors: Ambassadors, path: Path, *, gid: int) -> AsyncIterator[None]:
    """Answer on the socket at `path` (mode 0660, group `gid`) until the block ends."""
    application = web.Application(client_max_size=LARGEST_BODY, middlewares=[_errors, _few(_most_requests())])
    for part in (_Api(machine), _FilesApi(machine.files), _AmbassadorApi(ambassadors)):
        application.add_routes(part.routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    asyncio.get_running_loop().set_exception_handler(Unaccepted())
    try:
        await _listen(runner, path, gid)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, path: Path, gid: int) -> None:
    """The socket is complete before it has its name: nobody meets it half-made, nor an old one in its place."""
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    await asyncio.to_thread(temporary.unlink, missing_ok=True)
    await web.UnixSite(runner, str(temporary)).start()
    await asyncio.to_thread(os.chown, temporary, -1, gid)
    await asyncio.to_thread(temporary.chmod, 0o660)
    await asyncio.to_thread(temporary.replace, path)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_request(request)
        return await handler(request)
    except web.HTTPError as error:  # of a web page, no such path, another method, a body that is too large
        return _refusal(UsageError(f"{request.path}: {error.reason}", hint=HINT), error.status)
    except Dom0Error as error:
        return _refusal(error, STATUSES.get(error.exit_code, web.HTTPInternalServerError.status_code))
    except ConnectionResetError:  # whoever asked has gone; what was asked for goes on
        return web.Response()
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        return _too_many()


def _few(most: int) -> Middleware:
    """No more than `most` requests at once: what is left of our file descriptors is for the machine."""
    under_way = 0

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal under_way
        if under_way >= most:
            return _too_many()
        under_way += 1
        try:
            return await handler(request)
        finally:
            under_way -= 1

    return middleware


def _too_many() -> web.Response:
    busy = Busy("dom0: too many requests at once", hint="end some of them: dom0 status --watch")
    response = _refusal(busy, STATUSES[Busy.exit_code])
    response.force_close()
    return response


def _most_requests() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft // 2)


def _refusal(error: Dom0Error, status: int) -> web.Response:
    body = msgspec.json.encode({"message": error.message, "hint": error.hint})
    return web.Response(status=status, body=body, content_type="application/json")


def _document(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def _read(request: web.Request, type_: type[T]) -> T:
    """An empty body means all defaults. Raises UsageError."""
    body = await request.read() or b"{}"
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.DecodeError as error:
        raise UsageError(f"{request.path}: {error}", hint=HINT) from error


class _Api:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self.status),
            web.get("/v1/watch", self.watch),
            web.get("/v1/history", self.history),
            web.post("/v1/up", self.up),
            web.post("/v1/rollback", self.rollback),
            web.post("/v1/try", self.try_next),
            web.post("/v1/confirm", self.confirm),
            web.post("/v1/abort", self.abort),
        ]

    async def status(self, _request: web.Request) -> web.Response:
        return _document(self._machine.status())

    async def history(self, _request: web.Request) -> web.Response:
        return _document(self._machine.history())

    async def watch(self, request: web.Request) -> web.StreamResponse:
        response = await _begin_lines(request)
        while request.transport is not None:
            seen = self._machine.changed.count
            await _send_line(response, self._machine.status())
            while self._machine.changed.count == seen and request.transport is not None:  # who has gone says nothing
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GONE_WITHIN):
                        await self._machine.changed.after(seen)
            await asyncio.sleep(WATCH_AT_MOST_EVERY)
        return response

    async def up(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request.clone(client_max_size=LARGEST_PROJECT), UpRequest)
        return await _send_progress(request, self._machine.up(asked))

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, RollbackRequest)
        return await _send_progress(request, self._machine.rollback(asked.generation))

    async def try_next(self, request: web.Request) -> web.Response:
        asked = await _read(request, TryRequest)
        self._machine.try_next(Trial(dom0_image=asked.dom0_image, seconds=asked.seconds))
        return web.Response(status=web.HTTPNoContent.status_code)

    async def confirm(self, _request: web.Request) -> web.Response:
        return _document(await self._machine.confirm())

    async def abort(self, _request: web.Request) -> web.Response:
        return _document(await self._machine.abort())


class _FilesApi:
    def __init__(self, files: Files) -> None:
        self._files = files

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/files", self.list),
            web.get("/v1/files/diff", self.diff),
            web.post("/v1/files/take", self.take),
            web.post("/v1/files/keep", self.keep),
            web.post("/v1/files/plan", self.plan),
        ]

    async def list(self, _request: web.Request) -> web.Response:
        return _document(self._files.survey())

    async def diff(self, request: web.Request) -> web.Response:
        return _document(self._files.diff(request.query.get("path", "")))

    async def take(self, request: web.Request) -> web.Response:
        return _document(self._files.take((await _read(request, FilesRequest)).paths))

    async def keep(self, request: web.Request) -> web.Response:
        return _document(self._files.keep((await _read(request, FilesRequest)).paths))

    async def plan(self, request: web.Request) -> web.Response:
        asked = await _read(request.clone(client_max_size=LARGEST_PROJECT), FilesPlanRequest)
        return _document(self._files.preview(asked.files))


class _AmbassadorApi:
    def __init__(self, ambassadors: Ambassadors) -> None:
        self._ambassadors = ambassadors

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/ambassadors", self.list),
            web.get("/v1/ambassadors/{name}/history", self.history),
            web.get("/v1/ambassadors/{name}/flows", self.flows),
            web.post("/v1/ambassadors/{name}/rewire", self.rewire),
            web.post("/v1/ambassadors/{name}/undo", self.undo),
        ]

    async def list(self, _request: web.Request) -> web.Response:
        return _document(self._ambassadors.status())

    async def history(self, request: web.Request) -> web.Response:
        return _document(await self._ambassadors.history(request.match_info["name"]))

    async def flows(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.convert(dict(request.query), Flows, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"{request.path}: {error}", hint=HINT) from error
        return _document(await self._ambassadors.flows(request.match_info["name"], asked))

    async def rewire(self, request: web.Request) -> web.Response:
        asked = await _read(request, Rewire)
        return _document(await self._ambassadors.rewire(request.match_info["name"], asked))

    async def undo(self, request: web.Request) -> web.Response:
        asked = await _read(request, Undo)
        return _document(await self._ambassadors.undo(request.match_info["name"], asked))


async def _send_progress(request: web.Request, lines: AsyncGenerator[Progress]) -> web.StreamResponse:
    """The first line decides the status: a refusal before it is an ordinary error answer."""
    async with contextlib.aclosing(lines):
        first = await anext(lines, None)
        if first is None:
            raise Busy("dom0: is shutting down", hint="ask again when it has started: dom0 status")
        response = await _begin_lines(request)
        await _send_line(response, first)
        async for line in lines:
            await _send_line(response, line)
    await response.write_eof()
    return response


async def _begin_lines(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    return response


async def _send_line(response: web.StreamResponse, value: object) -> None:
    await response.write(msgspec.json.encode(value) + b"\n")
