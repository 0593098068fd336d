"""What is wrong with the sockets of scopes on this machine, and with what was granted through them.

Read when somebody asks for it: from the directory of each scope, its control group, and the picture that the loop has
anyway. The Engine is asked nothing. What is wrong inside a guest's machine is said there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dom0.agent.scope_usage import count_owned
from dom0.errors import Dom0Error
from dom0.health import Problem, Severity
from dom0.plan.actual import Actual
from dom0.plan.container_plan import SlotPlan
from dom0.plan.desired import Role
from dom0.plan.orchestrators import scope_served_by
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan
from dom0.socketproxy import budget, refusals, registrations
from dom0.socketproxy.refusals import RefusedRequest
from dom0.socketproxy.registrations import Registered, Registration
from dom0.socketproxy.scope import NAME_PATTERN, Scope

LASTS = 86400.0  # seconds that something is told of that happened once; until its socket has another server at most
READING = ("GET", "HEAD")
DOWN = (Phase.FAILED, Phase.CRASH_LOOP, Phase.UNHEALTHY, Phase.STOPPED)  # phases of a server that does not serve


class ScopeProblems:
    """Remembers how far it has read what was refused. `hierarchies`: where the control groups of the host are."""

    def __init__(self, hierarchies: Path) -> None:
        self._hierarchies = hierarchies
        self._logs: dict[str, _Log] = {}

    def look(self, plan: Plan | None, actual: Actual | None, now: float) -> tuple[Problem, ...]:
        there: list[str] = []
        with contextlib.suppress(OSError):
            there = [
                one
                for one in registrations.known(registrations.FILE, registrations.FAILED)
                if NAME_PATTERN.fullmatch(one)
            ]
        planned = plan.slots if plan else ()
        servers = {scope_served_by(one.slot.service): one for one in planned if one.slot.role is Role.SOCKET}
        for gone in self._logs.keys() - set(there):
            self._logs.pop(gone).close()
        scopes = sorted({*there, *servers})
        return tuple(one for scope in scopes for one in self._of(scope, servers.get(scope), actual or Actual(), now))

    def _of(self, scope: str, server: SlotPlan | None, actual: Actual, now: float) -> Iterator[Problem]:
        if cut_off := actual.cut_off_inside.get(scope):
            yield Problem(
                code="scope-cut-off",
                subject=_subject(scope),
                title=f"its socket was made anew, and has the one before bound: {', '.join(cut_off)}",
                hint=f"docker restart {' '.join(cut_off)}",
            )
        found = None
        try:
            found = registrations.read(scope)
        except Dom0Error as error:
            yield _unregistered(scope, error.message, error.hint)
            return
        except OSError:
            pass
        if found is None or not found.is_served:
            yield from _without_server(scope, found, server)
            return
        registration = found.registration
        used_up = tuple(self._used_up(Scope(scope), registration, actual, now))
        if used_up:
            yield Problem(
                code="scope-budget",
                subject=_subject(scope),
                title=f"has used up what it was granted: {', '.join(used_up)}",
                severity=Severity.WARNING,
                hint=f"dom0 socket show {scope}; grant it more, or stop some of it",
            )
        yield from self._refused(scope, registration.since, now)

    def _used_up(self, scope: Scope, registration: Registration, actual: Actual, now: float) -> Iterator[str]:
        grants = registration.grants
        out = actual.out_of_memory.get(scope.name, 0.0)
        if grants.memory is not None and out > max(registration.since, now - LASTS):
            yield f"memory ({grants.memory}; the kernel has killed a process)"
        if grants.pids is not None and registration.cgroup_parent:
            counted = budget.counted(self._hierarchies, registration.cgroup_parent)
            if counted and counted.pids >= grants.pids:
                yield f"pids ({counted.pids} of {grants.pids})"
        for kind, count in count_owned(scope, actual).items():
            if 0 < getattr(grants, kind) <= count:
                yield f"{kind} ({count} of {getattr(grants, kind)})"

    def _refused(self, scope: str, since: float, now: float) -> Iterator[Problem]:
        log = self._logs.get(scope)
        if log is None or log.since != since:
            if log:
                log.close()
            log = self._logs[scope] = _Log(registrations.directory_of(scope), since)
        log.read()
        if log.last and now - log.last.at < LASTS:
            requests = f"{log.count} requests were" if log.count > 1 else "a request was"
            yield Problem(
                code="scope-refused",
                subject=_subject(scope),
                title=f"{requests} refused, lastly: {log.last.message}",
                severity=Severity.WARNING,
                hint=f"dom0 socket log {scope}",
                since=log.last.at,
            )


class _Log:
    """What was refused since the epoch's second `since`, when the server began.

    Not what only reads: programs ask whether something is there that is not theirs (a dom0 for its image's names).
    """

    def __init__(self, directory: Path, since: float) -> None:
        self.since = since
        self.count = 0
        self.last: RefusedRequest | None = None
        self._reader = refusals.Reader(directory)

    def read(self) -> None:
        with contextlib.suppress(OSError):
            for one in self._reader.read():
                if one.at >= self.since and one.method not in READING:
                    self.count, self.last = self.count + one.times, one

    def close(self) -> None:
        self._reader.close()


def _without_server(scope: str, found: Registered | None, server: SlotPlan | None) -> Iterator[Problem]:
    """Of a scope of the project there is no trouble while its first server is on its way."""
    failure = registrations.failure(scope)
    if found is None and failure is None and server is not None and server.phase is Phase.READY:
        title = "its server runs and cannot write its directory: dom0 socket ls, show and log know nothing of it"
        yield _unregistered(scope, title, f"docker logs {server.slot.name}; df {registrations.directory_of(scope)}")
    elif found or failure or (server and server.phase in DOWN):
        reason = failure.message if failure else (server.reason if server else "")
        hint = f"serve it again: dom0 socket serve --scope {scope}; or be rid of it: dom0 socket rm {scope}"
        if server:
            hint = f"docker logs {server.slot.name}; then dom0 up"
        is_held = server is not None and server.phase is Phase.STOPPED
        yield Problem(
            code="scope-unserved",
            subject=_subject(scope),
            title=f"nobody serves its socket: {reason or 'its server was killed'}",
            severity=Severity.WARNING if is_held else Severity.ERROR,
            hint=(failure and failure.hint) or hint,
            since=failure.at if failure else 0.0,
        )


def _unregistered(scope: str, title: str, hint: str) -> Problem:
    subject = _subject(scope)
    return Problem(code="scope-unregistered", subject=subject, title=title, severity=Severity.WARNING, hint=hint)


def _subject(scope: str) -> str:
    """A service of the project may have the same name."""
    return f"scope {scope}"
