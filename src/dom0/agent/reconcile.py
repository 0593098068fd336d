"""The loop: look, plan, start the steps that are due, and again, for as long as the agent lives.

Theory of operation. One task owns the picture and the memory; everything else only tells it something and wakes it:
steps when they end, the event stream, health gates, the clock. A turn is: refresh the picture where it was touched,
make the whole plan anew, start those of its steps whose lock is free. Creating and starting is bounded near twice the
cores (an Engine saturates there, and more only delays the critical path: moby#42096); stopping waits for other
people's processes and is not. Nothing is remembered about what a step was part of: the next plan knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from msgspec.structs import replace

from dom0.agent.apply import Applier
from dom0.agent.gate import pass_gate
from dom0.agent.observe import Observer
from dom0.agent.refusal import refusal_of
from dom0.engine.protocol import Engine
from dom0.engine.values import Event, State
from dom0.errors import EngineError, EngineUnreachable
from dom0.plan.container_plan import SlotPlan
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory, recent
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan, make_plan
from dom0.plan.remember import remember
from dom0.plan.scene import version
from dom0.plan.steps import (
    AnyStep,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    ParkContainer,
    RemoveContainer,
    RemoveNetwork,
    ReplaceNetwork,
    RestartContainer,
    StopContainer,
)
from dom0.plan.text import say_step

log = logging.getLogger(__name__)

RESYNC = 60.0  # seconds between full listings
THOROUGH_EVERY = 10  # of which each tenth inspects every container
RECONNECT_MOST = 5.0  # seconds between attempts to reach the Engine
DEFAULT_NETWORK = "bridge"
STOPS = 64  # stops under way at once


StepListener: TypeAlias = Callable[[AnyStep, EngineError | None, float], None]
"""Called when a step has ended: what it was, what the Engine said against it, seconds it took."""


class Clock(Protocol):
    def now(self) -> float: ...
    async def wait(self, event: asyncio.Event, timeout: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    async def wait(self, event: asyncio.Event, timeout: float) -> None:
        """Until `event` is set, `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return


class Reconciler:
    """`save` is called with the memory before anything is done that it must survive."""

    def __init__(
        self,
        engine: Engine,
        desired: Desired,
        *,
        memory: Memory,
        save: Callable[[Memory], None],
        limit: int,
        all_endpoints: bool,
        clock: Clock | None = None,
    ) -> None:
        self.memory = memory
        self.desired = desired
        self.plan: Plan | None = None
        self.on_plan: Callable[[Plan], float] = lambda _plan: 0.0  # returns when to plan again at the latest, 0: any
        self.on_step: StepListener = lambda _step, _error, _seconds: None
        self.unreachable_since = 0.0
        self.generation = 0
        self._engine = engine
        self._observer = Observer(engine, desired.project)
        self._save = save
        self._saved = memory
        self._limit = limit
        self._all_endpoints = all_endpoints
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        self._under_way: dict[str, AnyStep] = {}
        self._touched: set[str] = set()  # containers to look at again
        self._ended: list[str] = []  # locks to free as soon as the picture shows what their steps did
        self._gates: set[str] = set()
        self._look_needed = True
        self._looked = 0.0
        self._looks = 0
        self._retry_in = 0.1
        self._plan_again_at = 0.0
        self._engine_start = 0.0
        self._closing = False

    def adopt(self, desired: Desired, generation: int, memory: Memory) -> None:
        """Aim at another desired state from the next turn on."""
        self.desired, self.generation, self.memory, self.plan = desired, generation, memory, None
        self._keep_memory()
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        """Let `run` end after the steps that are under way."""
        self._closing = True
        self._wake.set()

    @property
    def steps_under_way(self) -> tuple[AnyStep, ...]:
        return tuple(self._under_way.values())

    async def run(self) -> None:
        """Keep the Engine as desired until `close`."""
        async with asyncio.TaskGroup() as tasks:
            events = tasks.create_task(self._follow_events())
            while not self._closing:
                await self.turn(tasks)
                await self._clock.wait(self._wake, self._until_next_turn())
            events.cancel()

    async def settle(self) -> Plan:
        """Work until nothing is left to do, without following events. Raises EngineUnreachable."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self.turn(tasks)
                if self.unreachable_since:
                    raise EngineUnreachable("the Engine went away", hint="start it, then run this again")
                if self.plan is not None and self.plan.settled and not self._under_way:
                    return self.plan
                await self._clock.wait(self._wake, self._until_next_turn())

    async def turn(self, tasks: asyncio.TaskGroup) -> None:
        self._wake.clear()
        try:
            await self._refresh_picture()
            actual = await self._observer.actual(self.desired)
        except EngineUnreachable as error:
            self._note_unreachable(error)
            return
        self._note_reachable()
        self.plan = make_plan(self.desired, actual, self.memory, self._clock.now())
        self._remember_plan(self.plan)
        self._start_steps(self.plan.steps, tasks)
        self._start_gates(self.plan.slots, tasks)
        self._keep_memory()
        self._plan_again_at = self.on_plan(self.plan)

    # the picture

    async def _refresh_picture(self) -> None:
        now = self._clock.now()
        touched, self._touched = self._touched, set()
        ended, self._ended = self._ended, []
        if self._look_needed or now - self._looked >= RESYNC:
            if self._look_needed:
                await self._catch_up(now)
            await self._observer.look(thorough=self._look_needed or self._looks % THOROUGH_EVERY == 0)
            if self._look_needed:
                self._note_interrupted()
            self._look_needed, self._looked, self._looks = False, now, self._looks + 1
        else:
            await self._observer.refresh(touched)
        for lock in ended:
            del self._under_way[lock]

    async def _catch_up(self, now: float) -> None:
        """First what happened while nobody listened: who stopped what decides how the picture is read."""
        await self._note_engine_start()
        if self.memory.last_event:
            for event in await self._engine.past_events(since=self.memory.last_event, until=now):
                self._take_event(event)

    async def _note_engine_start(self) -> None:
        """The Engine makes its default network anew at every start, after it has ended what a crash left running."""
        default = [n.created for n in await self._engine.networks() if n.name == DEFAULT_NETWORK]
        self._engine_start = max(default, default=0.0)

    def _note_interrupted(self) -> None:
        """What ran when we last looked and ended without an event ended with its Engine: not a finished job."""
        now = self._clock.now()
        ended = [self._observer.container(container_id) for container_id in self.memory.running]
        interrupted = {
            container.id: now
            for container in ended
            if container is not None and container.state is State.EXITED and container.id not in self.memory.ended
        }
        self.memory = replace(self.memory, stopped=self.memory.stopped | interrupted)

    def _note_unreachable(self, error: EngineUnreachable) -> None:
        if not self.unreachable_since:
            log.warning("%s", error.message)
            self.unreachable_since = self._clock.now()
        self._look_needed = True

    def _note_reachable(self) -> None:
        self.unreachable_since, self._retry_in = 0.0, 0.1

    def _until_next_turn(self) -> float:
        if self.unreachable_since:
            self._retry_in = min(self._retry_in * 2, RECONNECT_MOST)
            return self._retry_in
        now = self._clock.now()
        times = [self._looked + RESYNC]
        times += [self._plan_again_at] if self._plan_again_at else []
        if self.plan is not None and self.plan.retry_at:
            times.append(self.plan.retry_at)
        return max(0.0, min(times) - now)

    # the memory

    def _remember_plan(self, plan: Plan) -> None:
        """Write down what the next agent could not find out from the Engine alone."""
        completed = {p.slot.key: version(p.slot) for p in plan.slots if p.phase is Phase.COMPLETED}
        parked = {p.slot.key: version(p.slot) for p in plan.slots if p.phase is Phase.PARKED}
        containers = self._observer.containers
        present = {container.id for container in containers}
        running = tuple(sorted(container.id for container in containers if container.running))
        self.memory = replace(
            self.memory,
            completed=self.memory.completed | completed,
            parked=self.memory.parked | parked,
            running=running,
            ended={k: v for k, v in self.memory.ended.items() if k in present},
            stopped={k: v for k, v in self.memory.stopped.items() if k in present},
            held={k: v for k, v in self.memory.held.items() if k in present and k not in running},
        )

    def _keep_memory(self) -> None:
        if self.memory != self._saved:
            self._save(self.memory)
            self._saved = self.memory

    # steps

    def _start_steps(self, steps: Iterable[AnyStep], tasks: asyncio.TaskGroup) -> None:
        due = [step for step in steps if self._may_start(step)]
        stops = {step.container_id: self._clock.now() for step in due if isinstance(step, STOPPING)}
        if stops:
            self.memory = replace(self.memory, stopped=self.memory.stopped | stops)
            self._keep_memory()
        for step in due:
            tasks.create_task(self._run_step(step))

    def _may_start(self, step: AnyStep) -> bool:
        if self._closing or step.lock in self._under_way:
            return False
        waiting_only = isinstance(step, StopContainer | ParkContainer)
        alike = sum(isinstance(s, StopContainer | ParkContainer) is waiting_only for s in self._under_way.values())
        if alike >= (STOPS if waiting_only else self._limit):
            return False
        self._under_way[step.lock] = step
        return True

    async def _run_step(self, step: AnyStep) -> None:
        log.info("%s (%s)", say_step(step), step.reason)
        began, failed = self._clock.now(), None
        if isinstance(step, RestartContainer):
            self._count_restart(step)
        try:
            applier = Applier(self._engine, generation=self.generation, all_endpoints=self._all_endpoints)
            touched = await applier.apply(step)
            self._touched |= touched
            self._forget_refusal(step)
        except EngineUnreachable:
            self._look_needed = True
        except EngineError as error:
            failed = error
            self._note_refusal(step, error)
        finally:
            self._ended.append(step.lock)
            self._touched.add(getattr(step, "container_id", ""))
            self._touched.discard("")
            if isinstance(step, CreateNetwork | CreateVolume | RemoveNetwork | ReplaceNetwork):
                self._observer.mark_ground()
            self._wake.set()
        self.on_step(step, failed, self._clock.now() - began)

    def _count_restart(self, step: RestartContainer) -> None:
        now, key = self._clock.now(), step.slot.key
        crashes = (*recent(self.memory.crashes.get(key, ()), now), now)
        if step.reason == "unhealthy":
            self.memory = replace(self.memory, crashes=self.memory.crashes | {key: crashes})

    def _note_refusal(self, step: AnyStep, error: EngineError) -> None:
        log.warning("%s: %s", say_step(step), error.message)
        if isinstance(step, CreateContainer):
            self._look_needed = True  # the name may be taken by what we did not know of
        refusal = refusal_of(step, error, self.memory.refused.get(step.lock), self._clock.now())
        if refusal is not None:
            self.memory = replace(self.memory, refused=self.memory.refused | {step.lock: refusal})

    def _forget_refusal(self, step: AnyStep) -> None:
        if step.lock in self.memory.refused:
            refused = {lock: refusal for lock, refusal in self.memory.refused.items() if lock != step.lock}
            self.memory = replace(self.memory, refused=refused)

    # health gates

    def _start_gates(self, plans: Iterable[SlotPlan], tasks: asyncio.TaskGroup) -> None:
        for plan in plans:
            container, slot = plan.container, plan.slot
            if plan.phase is not Phase.STARTING or container is None or container.id in self._gates:
                continue
            if slot.health is not None and slot.health_gate and container.state is State.RUNNING:
                self._gates.add(container.id)
                tasks.create_task(self._run_gate(plan))

    async def _run_gate(self, plan: SlotPlan) -> None:
        assert plan.container is not None
        assert plan.slot.health is not None
        container = plan.container
        try:
            passed = await pass_gate(self._engine, container.id, plan.slot.health)
        except EngineError:
            passed = False
        finally:
            self._gates.discard(container.id)
        if passed:
            self.memory = replace(self.memory, gated=self.memory.gated | {container.id: container.started})
        else:
            self._touched.add(container.id)
        self._wake.set()

    # events

    async def _follow_events(self) -> None:
        pause = 0.1
        while True:
            try:
                await self._note_engine_start()
                since = self.memory.last_event or self._clock.now()
                async with contextlib.aclosing(self._engine.events(since=since)) as events:
                    async for event in events:
                        pause = 0.1
                        self._take_event(event)
            except EngineError as error:
                log.debug("events: %s", error.message)
            self._look_needed = True
            self._wake.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, RECONNECT_MOST)

    def _take_event(self, event: Event) -> None:
        if event.time <= self.memory.last_event:
            return  # told again after a reconnect
        self.memory = replace(self.memory, last_event=event.time)
        if not self._observer.note(event):
            return
        by_the_engine = event.time < self._engine_start  # no person could reach it yet (seen on Docker 26.1)
        if event.type == "container" and not by_the_engine and self._observer.is_ours(event.attributes):
            self.memory = remember(self.memory, event)
        self._wake.set()


STOPPING = (StopContainer, ParkContainer, RestartContainer, RemoveContainer)


async def take_down(engine: Engine, project: str, *, limit: int, on_step: StepListener | None = None) -> Plan:
    """Stop and remove the project's containers, dependents first, and its networks. Volumes and images stay."""
    reconciler = Reconciler(
        engine, Desired(project=project), memory=Memory(), save=lambda _memory: None, limit=limit, all_endpoints=True
    )
    if on_step is not None:
        reconciler.on_step = on_step
    return await reconciler.settle()
