"""Scopes that one process serves together: DIRECTORY/guest.yaml has the grants of `guest`.

One that cannot be served is tried again, and holds no other one up. Where a file has changed, the scope is served by
its new grants beside the old ones, which end then: nobody is refused. A file that is not understood changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from dom0.errors import Dom0Error, UsageError
from dom0.socketproxy import grants, hold, registrations
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.kept import held
from dom0.socketproxy.scope import Scope

AGAIN = 2.0  # seconds until one that could not be served is tried again

log = logging.getLogger(__name__)


class Serving:
    """A scope by one file's grants, until `ended`."""

    def __init__(self, scope: str, granted: Grants) -> None:
        self.scope = scope
        self.grants = granted
        self.answers = asyncio.Event()
        self.ended = asyncio.Event()
        self.newer: Serving | None = None  # by the grants that its file had next

    def is_wanted(self) -> bool:
        """Whether it may begin: where newer grants are waiting, only again; never once newer ones answer."""
        newer = self.newer
        while newer and not newer.answers.is_set():
            newer = newer.newer
        return not self.ended.is_set() and newer is None and (self.newer is None or self.answers.is_set())


Run = Callable[[Serving, Path, socket.socket], Awaitable[None]]
"""Serve on that socket at that path, say that it `answers`, return when it is `ended`. Raises Dom0Error, OSError."""


class Together:
    """The sockets are our own, DIRECTORY_OF_THE_SCOPE/docker.sock, or those of a `holder` (see `hold`)."""

    def __init__(self, directory: Path, holder: Path | None, run: Run) -> None:
        self._directory = directory
        self._holder = holder
        self._run = run
        self._served: dict[str, Serving] = {}  # by scope, with the grants that its file has now
        self._listeners: dict[str, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def follow(self) -> None:
        """Serve what the files say now, unless all `end`."""
        if self._is_ending:
            return
        files = {}
        for file in sorted(self._directory.glob("*.yaml")):
            try:
                files[Scope(file.stem).name] = file
            except UsageError as error:  # it would be part of a path
                log.error("%s: %s", file, error)  # noqa: TRY400 -- no bug: the trace says nothing
        if not files:
            log.error("%s: has no file NAME.yaml: nothing changes", self._directory)
            return
        for scope in self._served.keys() - files.keys():
            self._end(scope)
        for scope, file in files.items():
            try:
                granted = grants.read(file)
            except (Dom0Error, OSError) as error:
                _note(scope, error)
                continue
            before = self._served.get(scope)
            if before is None or before.grants != granted:
                self._served[scope] = Serving(scope, granted)
                if before:
                    before.newer = self._served[scope]
                task = asyncio.create_task(self._keep(self._served[scope], before))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _keep(self, one: Serving, before: Serving | None) -> None:
        ending = asyncio.create_task(_end_after(one, before))
        said = ""
        while not one.ended.is_set():
            try:
                if self._holder:
                    path = self._holder / one.scope / registrations.SOCKET
                    kept = await held(self._holder, one.scope)
                else:
                    path = _path(one.scope)
                    if one.scope not in self._listeners:
                        self._listeners[one.scope] = hold.listening(path)
                    kept = self._listeners[one.scope].dup()
                with kept:
                    await self._run(one, path, kept)
            except (Dom0Error, OSError) as error:
                if one.is_wanted() and str(error) != said:
                    _note(one.scope, error)
                said = str(error)
            except Exception:  # a defect of ours, which is to be no other scope's
                log.exception("/%s: is not served", one.scope)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await one.ended.wait()
        await ending

    def _end(self, scope: str) -> None:
        self._served.pop(scope).ended.set()
        if listener := self._listeners.pop(scope, None):
            listener.close()
            _path(scope).unlink(missing_ok=True)

    async def end(self) -> None:
        """All of them; what is under way has some seconds."""
        self._is_ending = True
        for scope in list(self._served):
            self._end(scope)
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _end_after(one: Serving, before: Serving | None) -> None:
    """End what was served `before` once this one answers, or is to end itself."""
    waiting = {asyncio.create_task(event.wait()) for event in (one.answers, one.ended)}
    _, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    if before:
        before.ended.set()


def _note(scope: str, error: Dom0Error | OSError) -> None:
    log.error("/%s: is not served as its file says: %s", scope, error)
    registrations.note_failure(scope, str(error), getattr(error, "hint", ""))


def _path(scope: str) -> Path:
    return registrations.directory_of(scope).absolute() / registrations.SOCKET


def check(directory: Path) -> None:
    """Raises UsageError where there is nothing to serve."""
    if not any(directory.glob("*.yaml")):
        hint = "one for each scope, with its grants; {} for none"
        raise UsageError(f"{directory}: has no file NAME.yaml", hint=hint)
