"""The shortcut: an ambassador's rules in its consumers' network namespaces, so that packets bypass it.

Only containers that dom0 made get one, and only for listeners whose targets they reach as the ambassador does; all else
takes the ambassador as always. Old connections are drained there as the ambassador drains its own, and counted.

Theory of operation: a namespace is opened by the number of a process, and numbers are given again. So it is opened
first and the Engine is asked after that: if the container still runs as the same process since the same time, then the
open one is its. It stays open, and is entered by no other name, until the container ends or needs it no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from dom0.agent import ip_routes
from dom0.agent.ambassador_status import InShortcuts, PlacedFlow, ShortcutStatus
from dom0.agent.followed import shared
from dom0.agent.ip_routes import IpRoute
from dom0.ambassador.messages import State
from dom0.engine.protocol import Engine
from dom0.engine.values import Container
from dom0.engine.values import State as Life
from dom0.errors import Dom0Error, NotFound
from dom0.forward import place
from dom0.forward.drain import Counts, Drain, Tally, drain
from dom0.forward.kernel import KernelPlane, silence
from dom0.forward.place import Place
from dom0.forward.table import Listener, Route, Table
from dom0.plan import labels
from dom0.plan.desired import Role

PROC = Path("/proc")
AT_ONCE = 8  # consumers; each needs a few short processes
MOST_COUNTED = 100  # receipts of one shortcut
Start = tuple[str, float]
"""Container ID and when it was started: what one shortcut is for."""


class Ended(Dom0Error):
    """The container has stopped or restarted meanwhile."""


class Shortcuts:
    """Of one ambassador. `follow` may be called at any time, with whatever is known then."""

    def __init__(self, engine: Engine, service: str, project: Callable[[], str]) -> None:
        self.refused: dict[str, str] = {}  # consumer -> why its shortcut could not be made as it should be
        self._engine = engine
        self._project = project
        self._name = table_name(service)
        self._open: dict[Start, Shortcut] = {}
        self._seen: set[Start] = set()
        self.status: tuple[ShortcutStatus, ...] = ()
        self._lock = asyncio.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._withdrawn = False

    @property
    def is_draining(self) -> bool:
        return any(shortcut.is_draining for shortcut in self._open.values())

    async def follow(
        self,
        ambassador: Container,
        state: State,
        members: Collection[Container],
        *,
        present: Collection[str],
        verify: bool = False,
    ) -> None:
        """Do as `state` says in every container of `members` that may have the shortcut, and nowhere else.

        `present`: the services of all ambassadors; rules of any other are left over. `verify`: ask the kernel whether
        our rules are still there.
        """
        async with self._lock:
            if self._withdrawn:
                return
            running = {(member.id, member.started): member for member in members if member.state is Life.RUNNING}
            await self._leave(self._open.keys() - running.keys())
            self._seen &= running.keys()
            self.refused = {}
            known = frozenset(map(table_name, present))
            following = (self._follow_one(ambassador, state, one, known, verify=verify) for one in running.values())
            self.status = tuple(sorted(await asyncio.gather(*following), key=lambda one: one.consumer))

    async def retire(self) -> bool:
        """Forward nothing new; returns whether nothing is left to be done here."""
        async with self._lock:
            await self._leave(self._open.keys())
            self.status = ()
            return not self._open

    async def _leave(self, starts: Collection[Start]) -> None:
        """Of containers that are no consumers any more; of those that run only when all connections have ended.

        The Engine is asked which ones run: a namespace that we hold open does not end with its container.
        """
        for container_id, started in list(starts):
            shortcut = self._open[container_id, started]
            with contextlib.suppress(Dom0Error, OSError):
                try:
                    now = await self._engine.container(container_id)
                    runs = now.state is Life.RUNNING and now.started == started
                except NotFound:
                    runs = False
                if not runs or await shortcut.is_over():
                    self._open.pop((container_id, started)).close()

    async def withdraw(self) -> None:
        """Nothing keeps the rules up to date from now on: new connections take the ambassador."""
        async with self._lock:
            self._withdrawn = True
            for shortcut in self._open.values():
                with contextlib.suppress(Dom0Error, OSError):
                    await shortcut.plane.set(Table())
                shortcut.close()
            self._open.clear()

    async def flows(self) -> list[PlacedFlow]:
        found = []
        for shortcut in list(self._open.values()):
            with contextlib.suppress(Dom0Error, OSError):
                consumer = shortcut.consumer.name
                found += [PlacedFlow(flow=flow, consumer=consumer) for flow in await shortcut.plane.flows()]
        return found

    def counted(self, receipt: int) -> InShortcuts:
        """What was done here for one receipt, as far as this agent did it."""
        parts = [part for shortcut in self._open.values() if (part := shortcut.counts.get(receipt))]
        sums = {name: sum(getattr(part, name) for part in parts) for name in Counts.__struct_fields__}
        return InShortcuts(consumers=len(parts), **sums)

    async def _follow_one(
        self, ambassador: Container, state: State, consumer: Container, known: Collection[str], *, verify: bool
    ) -> ShortcutStatus:
        async with self._turns:
            start = (consumer.id, consumer.started)
            try:
                table, reason = self._wanted(ambassador, state, consumer)
                shortcut = self._open.get(start) or await self._begin(
                    ambassador, consumer, known, wanted=bool(table.routes)
                )
                if shortcut is None:
                    return ShortcutStatus(consumer=consumer.name, reason=reason)
                await shortcut.follow(state, table, addresses(ambassador, consumer), verify=verify)
                if not table.routes and await shortcut.is_over():
                    self._open.pop(start).close()
            except (Ended, FileNotFoundError, ProcessLookupError):  # of /proc
                return ShortcutStatus(consumer=consumer.name, reason="it has just ended")
            except (Dom0Error, OSError, ValueError) as error:
                why = error.message if isinstance(error, Dom0Error) else str(error)
                self.refused[consumer.name] = why
                return ShortcutStatus(consumer=consumer.name, reason=why)
            listeners = tuple(str(route.listener) for route in table.routes)
            return ShortcutStatus(consumer=consumer.name, listeners=listeners, reason=reason)

    async def _begin(
        self, ambassador: Container, consumer: Container, known: Collection[str], *, wanted: bool
    ) -> Shortcut | None:
        """None where no rules are wanted and there are none: an earlier agent may have left some, once a start."""
        start = (consumer.id, consumer.started)
        ours = is_ours(consumer, self._project()) and bool(addresses(ambassador, consumer))
        if not wanted and (start in self._seen or not ours):
            return None
        handle = await enter(self._engine, consumer)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, handle)
            where = place.consumer(_path(handle), addresses(ambassador, consumer), self._name)
            await silence(where.namespace, known)
            shortcut = Shortcut(consumer, handle, where)
            is_needed = wanted or await shortcut.plane.read() is not None
            undo.pop_all()
        self._seen.add(start)
        if not is_needed:
            shortcut.close()
            return None
        self._open[start] = shortcut
        return shortcut

    def _wanted(self, ambassador: Container, state: State, consumer: Container) -> tuple[Table, str]:
        """The routes that `consumer` may take by itself, and why not the others."""
        if reason := why_not(state, consumer, self._project()):
            return Table(), reason
        if not addresses(ambassador, consumer):
            return Table(), "the ambassador has no address that it knows"
        theirs, own = ip_routes.read(PROC, ambassador.pid), ip_routes.read(PROC, consumer.pid)
        routes, reasons = [], []
        for route in state.table.routes:
            if reason := _obstacle(route, consumer, own, theirs):
                reasons.append(f"{route.listener}: {reason}")
            else:
                routes.append(route)
        return Table(tuple(routes)), "; ".join(reasons)


class Shortcut:
    """In one consumer, of one ambassador, from one start of the container to its end."""

    def __init__(self, consumer: Container, handle: int, where: Place) -> None:
        self.consumer = consumer
        self.plane = KernelPlane(where)
        self.counts: dict[int, Tally] = {}  # by receipt
        self._handle = handle
        self._place = where
        self._table: Table | None = None
        self._drains: dict[tuple[int, Listener], Drain | None] = {}  # None: over

    @property
    def is_draining(self) -> bool:
        return any(self._drains.values())

    async def follow(self, state: State, table: Table, addresses: tuple[str, ...], *, verify: bool) -> None:
        """`addresses`: the ambassador's now; while it has none, the former ones stay. Raises Dom0Error."""
        if addresses not in ((), self._place.addresses):
            self._place = msgspec.structs.replace(self._place, addresses=addresses)
            self.plane, self._table = KernelPlane(self._place), None
        if table != self._table or (verify and await self.plane.read() != table):
            self._table = None
            await self.plane.set(table)
            self._table = table
        await self._drain(state)

    async def is_over(self) -> bool:
        """Forward nothing new; True once all connections have ended and the rules are removed. Raises Dom0Error."""
        self._table = None
        return await self.plane.retire()

    def close(self) -> None:
        os.close(self._handle)

    async def _drain(self, state: State) -> None:
        told = {(one.receipt, one.listener): one for one in state.drains}
        fresh = {key: msgspec.structs.replace(one, left=-1) for key, one in told.items()}
        self._drains = {key: self._drains.get(key, one) for key, one in fresh.items()} | {
            key: one for key, one in self._drains.items() if one is not None and one.receipt not in state.undone
        }
        due = [one for one in self._drains.values() if one is not None]
        if not due:
            return
        ticks = time.monotonic()
        for one in due:
            has_time = one.cut_at is not None and one.cut_at > ticks
            self.counts.setdefault(one.receipt, Tally(draining=float(has_time)))
        done = await drain(self.plane, due, await self.plane.flows(), self.counts, ticks)
        left = {(one.receipt, one.listener): one for one in done.left}
        self._drains = {key: left.get(key) for key in self._drains}
        self.counts = dict(list(done.counts.items())[-MOST_COUNTED:])


def table_name(service: str) -> str:
    """The same for every container of that service, so that another agent finds what this one made."""
    return hashlib.sha256(service.encode()).hexdigest()[:12]


def why_not(state: State, consumer: Container, project: str) -> str:
    """Why `consumer` gets no shortcut whatever the targets are."""
    if not is_ours(consumer, project):
        return "dom0 did not make it"
    if labels.AMBASSADOR in consumer.labels:
        return "it forwards itself"
    if not state.shortcut:
        return "switched off: x-dom0.ambassador.shortcut"
    if state.plane != KernelPlane.name:
        return f"the ambassador forwards by a {state.plane}, not in the kernel"
    return ""


def is_ours(container: Container, project: str) -> bool:
    """A service of the project, or a container of `dom0 dev`."""
    role = container.labels.get(labels.ROLE)
    return role == Role.DEV or (container.labels.get(labels.PROJECT) == project and role == Role.SERVICE)


def addresses(ambassador: Container, consumer: Container) -> tuple[str, ...]:
    """The ambassador's, as `consumer` knows them."""
    found = {address for endpoint in shared(ambassador, consumer) for address in endpoint.addresses}
    return tuple(sorted({str(ipaddress.ip_address(address)) for address in found}))


def _obstacle(route: Route, consumer: Container, own: tuple[IpRoute, ...], theirs: tuple[IpRoute, ...]) -> str:
    if route.down is not None:
        return "no target is up, and the ambassador says what that means"
    its_own = {address for endpoint in consumer.endpoints for address in endpoint.addresses}
    for target in route.targets:
        if target.address in its_own:
            return f"{target.address} is itself"
        if reason := ip_routes.obstacle(own, theirs, target.address):
            return reason
    return ""


async def enter(engine: Engine, consumer: Container) -> int:
    """Open the network namespace of `consumer`, if it is nobody else's, and return the handle.

    Raises Dom0Error, OSError.
    """
    handle = os.open(PROC / str(consumer.pid) / "ns" / "net", os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, handle)
        now = await engine.container(consumer.id)
        if (now.pid, now.started, now.state) != (consumer.pid, consumer.started, Life.RUNNING):
            raise Ended(f"{consumer.name}: has ended meanwhile")
        if os.fstat(handle).st_ino == (PROC / "self" / "ns" / "net").stat().st_ino:
            raise Dom0Error(f"{consumer.name}: is in the host's network")
        undo.pop_all()
    return handle


async def sweep(engine: Engine, container: Container, present: Collection[str]) -> None:
    """Silence what an earlier agent left in `container` for ambassadors that are not `present` any more.

    Raises Dom0Error, OSError.
    """
    handle = await enter(engine, container)
    try:
        await silence(_path(handle), frozenset(map(table_name, present)))
    finally:
        os.close(handle)


def _path(handle: int) -> str:
    """Other processes of ours enter by it, so not through `self`."""
    return f"/proc/{os.getpid()}/fd/{handle}"
