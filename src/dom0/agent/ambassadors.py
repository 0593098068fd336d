"""Ambassadors of the project: tells them where containers are, keeps their shortcuts, passes requests on.

Level-triggered: an event or a line of an ambassador's state only wakes the loop, which lists and compares. Only a stop
of a container waits until none leads there any more. Whatever an ambassador does or does not answer becomes a problem
in the status; it forwards on without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dom0.agent.ambassador_status import AmbassadorStatus, InShortcuts, PlacedFlow, Rewired
from dom0.agent.clock import Clock, SystemClock
from dom0.agent.conversation import Conversation, Talk, Unanswered
from dom0.agent.followed import Located, concerns, find, shared, wanted
from dom0.agent.progress import Changes
from dom0.agent.readiness import Readiness
from dom0.ambassador.declaration import DrainFor, find_far_flaw, parse_listeners, parse_policy
from dom0.ambassador.messages import Flows, Follow, History, Planned, Receipt, Rewire, Show, State, Undo
from dom0.ambassador.sources import Followed
from dom0.engine.protocol import Engine, find_containers
from dom0.engine.values import Container
from dom0.engine.values import State as Life
from dom0.errors import Dom0Error, EngineError, NotFound, UsageError
from dom0.forward.dataplane import Flow
from dom0.forward.drain import ENDED, Counts, Drain, forecast
from dom0.forward.table import Listener, Protocol, parse_listener
from dom0.health import Problem, Severity
from dom0.plan import labels
from dom0.plan.desired import Role

if TYPE_CHECKING:
    from dom0.agent.shortcut import Shortcuts

log = logging.getLogger(__name__)
T = TypeVar("T")

RESYNC = 30.0  # seconds between periodic looks
SETTLE = 0.05  # seconds: events come in bursts
DRAIN_EVERY = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds until an ambassador is asked again, growing
HELD_WITHIN = 2.0  # seconds that old connections have while new ones wait
DRAINED_WITHIN = 10.0  # seconds, whatever is promised: a change that goes back meanwhile needs what is being stopped
LEAVE_WITHIN = 5.0  # seconds for ambassadors to lead to a container no more; then it is stopped all the same
RESTARTS_WITHIN = 60.0  # seconds
FAR_WITHIN = 10.0  # seconds for the farm to say where something on another node is
PATIENCE = 10.0  # seconds that one may be silent before it is a problem: its control plane starts after its rules
_NOISE = ("exec_", "attach", "top", "resize", "archive-path", "extract-to-dir")


class KnownAmbassador(msgspec.Struct):
    """What we know of one ambassador: of the start of its container that we look at.

    `wished`: sources that requests under way need as well.
    """

    container: Container
    shortcuts: Shortcuts
    state: State | None = None
    error: Dom0Error | None = None
    silent_since: float = 0.0
    told: Located | None = None
    wished: list[tuple[Followed, ...]] = []
    members: tuple[Container, ...] = ()
    watching: asyncio.Task[None] | None = None
    watched: tuple[str, float] = ("", 0.0)  # container ID and start
    telling: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    def take(self, container: Container) -> None:
        if _start(self.container) != _start(container):
            self.told = None
        self.container = container

    @property
    def followed(self) -> tuple[Followed, ...]:
        """What it cannot find by itself."""
        told = wanted(text for listener in self.state.listeners for text in listener.sources) if self.state else ()
        return tuple(dict.fromkeys((*told, *(source for wished in self.wished for source in wished))))

    def by_its_ways(self, wished: tuple[Followed, ...], listener: str) -> tuple[Followed, ...]:
        """As its `listener` leads there, or all of them, where it is on another node; without what it will refuse."""
        if self.state is None:
            return wished
        named: tuple[Listener, ...] = ()
        with contextlib.suppress(ValueError):  # the ambassador refuses it, and says why
            named = parse_listeners(listener)
        ways: dict[Listener, bool] = {}
        for told in self.state.listeners:
            with contextlib.suppress(ValueError):  # whoever answers in the ambassador's place
                ways[parse_listener(told.listener)] = told.plaintext
        meant = [it for it in ways if it in named] or ways
        led = (
            source.in_plaintext if ways[it] else source
            for source in wished
            for it in meant
            if find_far_flaw(source, it, plaintext=ways[it]) is None
        )
        return tuple(dict.fromkeys(led))

    def hear(self, state: State, *, anew: bool = False) -> None:
        """An older one may come later, on another connection. `anew`: by one that may have begun to count again."""
        if anew or self.state is None or state.revision >= self.state.revision:
            self.state = state


class Ambassadors:
    """`changed` tells of another `readiness`, and is told when the problems change."""

    def __init__(
        self,
        engine: Engine,
        readiness: Readiness,
        changed: Changes,
        *,
        talk: Talk | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._readiness = readiness
        self._changed = changed
        self._talk = talk or Conversation(engine)
        self._clock = clock or SystemClock()
        self._known: dict[str, KnownAmbassador] = {}
        self._leaving: list[Shortcuts] = []  # of ambassadors that are gone, with connections under way
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._look_needed = True
        self._look_again_at = 0.0
        self._told: tuple[Problem, ...] = ()
        self._swept = ""  # project
        self._looked = asyncio.Event()
        self._ending: dict[str, list[bool]] = {}  # ID of a container -> whether it comes back, for each who stops it
        self._far: Mapping[str, tuple[str, ...]] = {}  # what is on other nodes -> ADDRESS:PORT
        self._far_reasons: Mapping[str, str] = {}

    async def run(self) -> None:
        """Until `close`."""
        async with asyncio.TaskGroup() as tasks:
            work = (self._follow_events(), self._follow_readiness(), self._take_turns(tasks))
            at_work = [tasks.create_task(one) for one in work]
            await self._closing.wait()
            for task in (*at_work, *(known.watching for known in self._known.values() if known.watching)):
                task.cancel()
        for shortcuts in (*self._leaving, *(known.shortcuts for known in self._known.values())):
            await shortcuts.withdraw()

    def close(self) -> None:
        self._closing.set()

    # what it tells

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for service in sorted(self._known) for problem in self._problems(service))

    def status(self) -> list[AmbassadorStatus]:
        return [
            AmbassadorStatus(
                service=service,
                container=known.container.name,
                container_id=known.container.id,
                running=known.container.running,
                error=known.error.message if known.error else "",
                state=known.state,
                shortcuts=known.shortcuts.status,
                addresses={
                    address: member.name
                    for member in known.members
                    for endpoint in shared(member, known.container)
                    for address in endpoint.addresses
                },
            )
            for service, known in sorted(self._known.items())
        ]

    # what is on other nodes of a farm

    @property
    def wanted_far(self) -> frozenset[str] | None:
        """As `node:NODE/service:NAME:PORT`, by a tunnel; after `plaintext:` without one. None until all were heard."""
        unheard = (it for it in self._known.values() if it.container.running and it.state is None and it.error is None)
        if not self._looked.is_set() or any(unheard):
            return None
        return frozenset(it.key for known in self._known.values() for it in known.followed if it.is_far)

    def tell_far(self, found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]) -> None:
        """ADDRESS:PORT of each, none where there is none; what is left out leads to where it did. `reasons`: why."""
        if (found, reasons) != (self._far, self._far_reasons):
            self._far, self._far_reasons = found, reasons
            self._wake.set()

    def _problems(self, service: str) -> Iterator[Problem]:
        known = self._known[service]
        reasons = {it.key: why for it in known.followed if (why := self._far_reasons.get(it.key))}
        told = known.state.problems if known.state else ()
        missing = {problem.subject for problem in told if problem.code == "ambassador-source"}
        for key, why in reasons.items():
            yield Problem(
                code="ambassador-node",
                subject=f"{service} {key}",
                title=why,
                severity=Severity.ERROR if key in missing else Severity.WARNING,
                hint="new connections meet what `down` says" if key in missing else "connections go to where it was",
            )
        if known.error is not None and self._clock.now() - known.silent_since >= PATIENCE:
            yield Problem(
                code="ambassador-silent",
                subject=service,
                title=f"{service} cannot be asked: {known.error.message}",
                severity=Severity.WARNING,
                hint=f"it forwards as before; dom0 logs {service}",
                since=known.silent_since,
            )
        if known.error is None:
            for problem in told:
                if problem.code == "ambassador-source" and problem.subject in reasons:
                    continue  # it is said why
                yield msgspec.structs.replace(problem, subject=f"{service} {problem.subject}")
        for consumer, why in sorted(known.shortcuts.refused.items()):
            yield Problem(
                code="ambassador-shortcut",
                subject=f"{service} {consumer}",
                title=f"{consumer} has no shortcut to {service}: {why}",
                severity=Severity.WARNING,
                hint="its connections take the ambassador; nothing has to be done",
            )

    # what users ask for

    async def rewire(self, name: str, request: Rewire) -> Rewired:
        """Raises UsageError, EngineError, or what the ambassador refused with."""
        known = self._find(name)
        wished = known.by_its_ways(wanted(request.to), request.listener)
        known.wished.append(wished)
        try:
            for service, container in (await self._present(self._project())).items():
                if self._known.get(service) is known:  # maybe in another container, or on another network by now
                    known.take(container)
            if known.state is None:
                known.state = await self._ask(known, Show(), State)
            await self._until_found_far(wished)
            await self._tell_found(known)
            if request.plan:
                return await self._planned(known, await self._ask(known, request, Planned))
            return await self._switched(known, await self._ask(known, request, Receipt))
        finally:
            known.wished.remove(wished)
            self._wake.set()

    async def _until_found_far(self, wished: Collection[Followed]) -> None:
        """Raises Dom0Error where it is known why one of them is nowhere."""
        far = [it.key for it in wished if it.is_far]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAR_WITHIN):
                while any(key not in self._far for key in far):  # noqa: ASYNC110 -- who is told waits for nobody
                    await asyncio.sleep(FIRST_PAUSE)
        for key in far:
            if not self._far.get(key) and (why := self._far_reasons.get(key)):
                raise Dom0Error(f"to: {key}: {why}", hint="nothing was changed")

    async def undo(self, name: str, request: Undo) -> Rewired:
        known = self._find(name)
        return await self._switched(known, await self._ask(known, request, Receipt))

    async def history(self, name: str) -> list[Receipt]:
        known = self._find(name)
        receipts = await self._ask(known, History(), list[Receipt])
        return [_together(receipt, known.shortcuts.counted(receipt.number)) for receipt in receipts]

    async def flows(self, name: str, request: Flows) -> list[PlacedFlow]:
        known = self._find(name)
        through = await self._ask(known, request, list[Flow])
        beside = [
            one
            for one in await known.shortcuts.flows()
            if request.generation in (0, one.flow.generation)
            if request.listener in ("", str(one.flow.came_by), str(one.flow.came_by).removesuffix("/tcp"))
        ]
        return [*(PlacedFlow(flow=flow) for flow in through), *beside]

    def _find(self, name: str) -> KnownAmbassador:
        for service, known in self._known.items():
            if name in (service, known.container.name):
                return known
        there = ", ".join(sorted(self._known)) or "none"
        raise UsageError(f"{name}: is no ambassador of this machine", hint=f"there are: {there}")

    async def _switched(self, known: KnownAmbassador, receipt: Receipt) -> Rewired:
        """Shortcuts follow before the answer, so that it counts what was done in them."""
        with contextlib.suppress(Dom0Error):  # it is done: they follow when it is heard again
            known.hear(await self._ask(known, Show(), State))
            await self._follow(known)
        part = known.shortcuts.counted(receipt.number)
        refused = tuple(f"{consumer}: {why}" for consumer, why in sorted(known.shortcuts.refused.items()))
        self._tell_problems()
        return Rewired(receipt=_together(receipt, part), shortcuts=part, refused=refused)

    async def _planned(self, known: KnownAmbassador, planned: Planned) -> Rewired:
        receipt = planned.receipt
        beside = [one for one in await known.shortcuts.flows() if str(one.flow.came_by) in receipt.listeners]
        cut_at = 0.0 if receipt.existing == "cut" else None
        drains = [
            Drain(receipt=0, listener=listener, since=0, until=2**32, udp=receipt.udp, cut_at=cut_at)
            for listener in {one.flow.came_by for one in beside}
        ]
        part = InShortcuts(**msgspec.structs.asdict(forecast(drains, [one.flow for one in beside], 0.0)))
        flows = (*(PlacedFlow(flow=flow) for flow in planned.flows), *beside)
        return Rewired(receipt=_together(receipt, part), shortcuts=part, flows=flows)

    async def _ask(self, known: KnownAmbassador, request: Rewire | Undo | History | Flows | Show, answer: type[T]) -> T:
        try:
            return await self._talk.ask(known.container.id, request, answer)
        except Unanswered as error:
            name = known.container.name
            hint = f"it forwards as before; docker logs {name} says why"
            raise Dom0Error(f"{name}: cannot be asked: {error.message}", hint=hint) from error

    # before a container is stopped

    @contextlib.asynccontextmanager
    async def leaving(self, container_id: str, *, comes_back: bool) -> AsyncIterator[None]:
        """Stop it inside: no new connection is led to it by then, and those that had time have ended.

        Where nothing else is behind an ambassador and it, or another one in its place, `comes_back`, new connections
        wait for that. An ambassador that does not answer prevents nothing.
        """
        self._ending.setdefault(container_id, []).append(comes_back)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_WITHIN):
                    while self._swept != self._project():
                        self._looked.clear()
                        await self._looked.wait()
            if self._known:
                container = await self._engine.container(container_id)
                led = [self._lead_elsewhere(known, container) for known in self._known.values()]
                concerned = [known for known in await asyncio.gather(*led) if known is not None]
                await self._until_drained(container, concerned)
            yield
        finally:
            self._ending[container_id].remove(comes_back)
            if not self._ending[container_id]:
                del self._ending[container_id]
            self._wake.set()

    async def _lead_elsewhere(self, known: KnownAmbassador, container: Container) -> KnownAmbassador | None:
        """Away from `container`. Returns the ambassador if it followed that."""
        try:
            async with asyncio.timeout(LEAVE_WITHIN):
                if known.state is None:
                    known.hear(await self._ask(known, Show(), State))
                if not any(concerns(source, container, self._project()) for source in known.followed):
                    return None
                await self._tell_found(known)
                await self._follow(known)
        except (Dom0Error, TimeoutError) as error:
            why = error.message if isinstance(error, Dom0Error) else f"no answer within {LEAVE_WITHIN:g} s"
            log.warning("%s: may still lead to %s, which is stopped: %s", known.container.name, container.name, why)
            known.told = None
        return known

    async def _until_drained(self, container: Container, concerned: Collection[KnownAmbassador]) -> None:
        """For as long as is promised, but not for long: less where new connections have to wait meanwhile."""
        began, pause = self._clock.monotonic(), FIRST_PAUSE
        its_own = {address for endpoint in container.endpoints for address in endpoint.addresses}
        while any([await self._has_time(known, its_own, self._clock.monotonic() - began) for known in concerned]):
            await asyncio.sleep(pause)
            pause = min(2 * pause, DRAIN_EVERY)

    async def _has_time(self, known: KnownAmbassador, its_own: Collection[str], waited: float) -> bool:
        """Whether a connection to one of the addresses `its_own` may still end by itself."""
        if known.state is None:
            return False
        patience: dict[str, float] = {}
        try:
            for listener in known.state.listeners:
                policy = parse_policy(known.state.existing.get(listener.listener, "keep"))
                if isinstance(policy, DrainFor):
                    most = HELD_WITHIN if listener.down else DRAINED_WITHIN
                    patience[listener.listener] = min(policy.seconds, most)
            if all(seconds <= waited for seconds in patience.values()):
                return False
            async with asyncio.timeout(LEAVE_WITHIN):
                flows = await self.flows(known.container.name, Flows())
        except (Dom0Error, TimeoutError, ValueError):  # it is gone, silent, or says nonsense
            return False
        return any(
            waited < patience.get(str(flow.came_by), 0.0)
            for flow in [one.flow for one in flows]
            if flow.target.address in its_own and flow.protocol is Protocol.TCP and flow.state not in ENDED
        )

    # the loop

    def _project(self) -> str:
        return self._readiness.now.project

    async def _take_turns(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            try:
                await self._turn(tasks)
            except Dom0Error as error:
                log.info("ambassadors: %s", error.message)
                self._look_needed = True
                await self._clock.wait(self._wake, LONGEST_PAUSE)
            pause = max(0.0, self._look_again_at - self._clock.monotonic())
            if self._leaving or any(known.shortcuts.is_draining for known in self._known.values()):
                pause = min(pause, DRAIN_EVERY)
            await self._clock.wait(self._wake, pause)
            await asyncio.sleep(SETTLE)

    async def _turn(self, tasks: asyncio.TaskGroup) -> None:
        anew, self._look_needed = self._look_needed, False
        verify = self._clock.monotonic() >= self._look_again_at
        if anew or verify:
            await self._look(tasks)
        if verify:
            self._look_again_at = self._clock.monotonic() + RESYNC
        for known in list(self._known.values()):
            try:
                await self._tell_found(known)
            except Dom0Error as error:
                log.info("%s: %s", known.container.name, error.message)
                known.told = None
            await self._follow(known, verify=verify)
            # A restart goes unnoticed in shortcuts; one that somebody stopped forwards nothing new.
            if not known.container.running and self._clock.now() - known.container.finished >= RESTARTS_WITHIN:
                await known.shortcuts.retire()
        self._leaving = [shortcuts for shortcuts in self._leaving if not await shortcuts.retire()]
        self._tell_problems()

    def _tell_problems(self) -> None:
        if (problems := self.problems) != self._told:
            self._told = problems
            self._changed.tell()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """List the ambassadors of the project, and the containers on their networks."""
        project = self._project()
        present = await self._present(project)
        for service in self._known.keys() - present.keys():
            gone = self._known.pop(service)
            if gone.watching is not None:
                gone.watching.cancel()
            self._leaving.append(gone.shortcuts)
        for service, container in present.items():
            known = self._known.get(service)
            if known is None:
                from dom0.agent.shortcut import Shortcuts  # speaks to the kernel: few machines have an ambassador

                known = self._known[service] = KnownAmbassador(
                    container, Shortcuts(self._engine, service, self._project)
                )
            known.take(container)
            ids: set[str] = set()  # of the other running containers on its networks, whoever made them
            for endpoint in container.endpoints if container.running else ():
                with contextlib.suppress(NotFound):
                    ids |= set(await self._engine.network_members(endpoint.network_id))
            known.members = await find_containers(self._engine, sorted(ids - {container.id}))
            self._watch(known, tasks)
        if self._swept != project:
            self._swept = project
            await self._sweep(project)
        self._looked.set()

    async def _present(self, project: str) -> dict[str, Container]:
        """One container of each service: the one that runs, while an old one stands beside it."""
        rows = await self._engine.containers(labels=[labels.AMBASSADOR, f"{labels.PROJECT}={project}"])
        inspected = await find_containers(self._engine, [row.id for row in rows])
        ordered = sorted(inspected, key=lambda one: (one.running, one.created))
        return {one.labels.get(labels.SERVICE, one.name): one for one in ordered}

    async def _sweep(self, project: str) -> None:
        """Once, at first: ambassadors that were removed while no agent ran have left rules in our containers."""
        ours = await self._engine.containers(labels=[f"{labels.PROJECT}={project}"])
        rows = (*ours, *await self._engine.containers(labels=[f"{labels.ROLE}={Role.DEV}"]))
        for container in await find_containers(self._engine, [row.id for row in rows]):
            if container.state is Life.RUNNING:
                from dom0.agent.shortcut import is_ours, sweep  # as in `_look`: at a first start nothing runs

                if is_ours(container, project):
                    with contextlib.suppress(Dom0Error, OSError):
                        await sweep(self._engine, container, self._known.keys())

    async def _tell_found(self, known: KnownAmbassador) -> None:
        """Raises Dom0Error."""
        if known.state is None or not known.container.running:
            return
        followed = known.followed
        if not followed:
            return
        async with known.telling:  # what was found first is told first
            rows = await self._engine.containers()
            meant = [row.id for row in rows if any(concerns(source, row, self._project()) for source in followed)]
            candidates = await find_containers(self._engine, meant)
            leaving = {container_id: any(back) for container_id, back in self._ending.items()}
            near = [source for source in followed if not source.is_far]
            found = find(near, known.container, candidates, self._readiness.now, leaving)
            far = {it.key: self._far[it.key] for it in followed if it.is_far and it.key in self._far}
            found = msgspec.structs.replace(found, addresses=found.addresses | far)
            if found != known.told:
                request = Follow(found=found.addresses, identities=found.identities, awaited=found.awaited)
                known.hear(await self._talk.ask(known.container.id, request, State))
                known.told = found

    async def _follow(self, known: KnownAmbassador, *, verify: bool = False) -> None:
        if known.state is not None and known.container.running:
            await known.shortcuts.follow(
                known.container, known.state, known.members, present=self._known.keys(), verify=verify
            )

    # states and events

    def _watch(self, known: KnownAmbassador, tasks: asyncio.TaskGroup) -> None:
        """One watcher for every start of the container."""
        anew, known.watched = known.watched != _start(known.container), _start(known.container)
        if known.watching is not None and (anew or not known.container.running):
            known.watching.cancel()
            known.watching = None
        if known.watching is None and known.container.running:
            known.watching = tasks.create_task(self._watch_one(known))

    async def _watch_one(self, known: KnownAmbassador) -> None:
        container_id, pause = known.container.id, FIRST_PAUSE
        while True:
            try:
                async with contextlib.aclosing(self._talk.watch(container_id)) as states:
                    anew = True
                    async for state in states:
                        known.hear(state, anew=anew)
                        known.error, pause, anew = None, FIRST_PAUSE, False
                        self._wake.set()
                raise Unanswered("it ended the conversation")
            except Dom0Error as error:
                if known.error is None:
                    known.silent_since = self._clock.now()
                known.error, known.told = error, None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _follow_readiness(self) -> None:
        """The Engine has no event for it."""
        while True:
            known = self._readiness.now
            await self._changed.until(lambda: self._readiness.now != known)  # noqa: B023 -- called before the next one
            self._look_needed |= self._readiness.now.project != known.project
            self._wake.set()

    async def _follow_events(self) -> None:
        pause = FIRST_PAUSE
        filters = {"type": ["container", "network"]}
        while True:
            try:
                async with contextlib.aclosing(self._engine.events(since=self._clock.now(), filters=filters)) as events:
                    async for event in events:
                        pause = FIRST_PAUSE
                        # A machine without ambassadors asks the Engine nothing while its containers come and go.
                        concerned = self._known or labels.AMBASSADOR in event.attributes
                        if (concerned or self._swept != self._project()) and not event.action.startswith(_NOISE):
                            self._look_needed = True
                            self._wake.set()
            except EngineError as error:
                log.debug("ambassadors: events: %s", error.message)
            self._look_needed = True
            self._wake.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _start(container: Container) -> tuple[str, float]:
    return (container.id, container.started)


def _together(receipt: Receipt, part: InShortcuts) -> Receipt:
    sums = {name: getattr(receipt, name) + getattr(part, name) for name in Counts.__struct_fields__}
    return msgspec.structs.replace(receipt, **sums)
