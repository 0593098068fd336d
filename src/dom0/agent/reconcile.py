"""The loop: look, plan, start the steps that are due, and again, for as long as the agent lives.

Theory of operation. The loop alone writes its picture and its memory; all others ask it for something and wake it:
who wants another desired state, steps when they end, the event stream, health gates, the clock. A turn is: refresh the
picture where it was touched, make the whole plan anew, start those of its steps whose lock is free. Creating and
starting is bounded by eight times the cores (with fewer, a core waits at times; more only delays the critical path:
moby#42096); stopping waits for the services' own processes and is not. Nothing is remembered about what a step was part
of: the next plan knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from dom0.agent.apply import Applier, AroundStop, stays
from dom0.agent.clock import Clock, SystemClock
from dom0.agent.gate import Gates
from dom0.agent.observe import Observer
from dom0.agent.ownership import Ownership
from dom0.agent.processes import Processes
from dom0.agent.refusal import Repeats, refusal_of
from dom0.agent.step_runner import StepResult, StepRunner
from dom0.engine.protocol import Engine
from dom0.engine.values import Container, Event, State
from dom0.errors import Dom0Error, EngineError, EngineUnreachable
from dom0.plan.actual import Actual
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory, SlotVersion, cleared
from dom0.plan.ownership import Seal
from dom0.plan.planner import Plan, make_plan
from dom0.plan.remember import count_crash, remember, remember_plan, without
from dom0.plan.steps import (
    UNHEALTHY,
    AnyStep,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    GiveUpContainer,
    RemoveContainer,
    RemoveNetwork,
    ReplaceNetwork,
    RestartContainer,
    RunPostStart,
    StopContainer,
)

log = logging.getLogger(__name__)

RESYNC = 60.0  # seconds between full listings
PROCESSES_EVERY = 5.0  # seconds between looks whether they are there
THOROUGH_EVERY = 10  # of which each tenth inspects every container
SAVE_AGAIN = 10.0  # seconds until what could not be written is tried again
RECONNECT_MOST = 5.0  # seconds between attempts to reach the Engine
SHORTEST_WAIT = 0.001  # seconds: timers and clocks differ in their last digits
DEFAULT_NETWORK = "bridge"
HEARD = 512  # events that are known again when a reconnect tells them twice; the Engine keeps 256


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` under way at once; `all_endpoints`: the Engine takes several networks at create (API 1.44).

    `under_owner_until`: what happened before was the owner's doing, who has stopped and started this whole machine.
    """

    steps: int
    all_endpoints: bool
    leaving: AroundStop = stays
    processes: Processes | None = None
    under_owner_until: float = 0.0


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop works towards. `pending`, `last_good` and `recreate` (None: as before) are as in Memory.

    `generation`: the number that new containers carry.
    `memory`: what the agent before us remembered. None: go on with what we remember, and give what was stopped, given
    up or refused another chance, because somebody has asked for it.
    """

    desired: Desired
    generation: int = 0
    pending: bool = False
    last_good: dict[str, SlotVersion] = {}
    recreate: tuple[str, ...] | None = None
    memory: Memory | None = None


class LoopListener(Protocol):
    """Is told what the loop does, in the middle of it: nothing here may wait."""

    def planned(self, plan: Plan) -> float:
        """Before its steps begin, unless this aims elsewhere. Returns seconds to plan again within (0: any)."""

    def step_ended(self, step: AnyStep, error: EngineError | None, seconds: float) -> None:
        """`error`: why the Engine refused it. `seconds`: how long it took."""

    def trouble_changed(self) -> None:
        """`trouble` has begun, or `unsaved` is another one."""

    def container_told(self, event: Event, memory: Memory) -> None:
        """The Engine has told something of one of our containers. `memory` is from before it."""


class Reconciler:
    """Idle until its first aim. `save` is called with the memory before anything is done that it must survive."""

    def __init__(
        self,
        engine: Engine,
        *,
        listener: LoopListener,
        surroundings: Surroundings,
        save: Callable[[Memory], None],
        seal: Seal,
        save_seal: Callable[[Seal], None],
        clock: Clock | None = None,
    ) -> None:
        self.plan: Plan | None = None
        self.actual: Actual | None = None  # what it was made of
        self.trouble: EngineError | None = None  # why the last look at the Engine failed
        self.trouble_since = 0.0
        self.unsaved: Dom0Error | None = None  # why the memory could not be written
        self._engine = engine
        self._listener = listener
        self._surroundings = surroundings
        self._memory = Memory()
        self._save = save
        self._saved: Memory | None = None  # as it is on the disk, once we know
        self._desired = Desired(project="")
        self._aimed = asyncio.Event()
        self._ownership = Ownership(seal, save_seal)
        self._observer = Observer(engine, self._ownership, surroundings.processes)
        self._applier = self._new_applier(0)
        self._clock = clock or SystemClock()
        self._wake = asyncio.Event()
        self._steps = StepRunner(engine, limit=surroundings.steps, clock=self._clock, wake=self._wake)
        self._touched: set[str] = set()  # containers to look at again
        self._gates = Gates(engine, self._note_gate)
        self._repeats = Repeats()
        self._heard: deque[tuple[float, str, str, str]] = deque(maxlen=HEARD)
        self._last_heard_before = 0.0  # by the agent before us
        self._look_needed = True
        self._look_again_at = 0.0  # monotonic, as the next one
        self._plan_again_at = 0.0
        self._looks = 0
        self._retry_in = 0.1
        self._engine_start = 0.0
        self._closing = asyncio.Event()

    @property
    def memory(self) -> Memory:
        return self._memory

    def aim(self, aim: Aim) -> None:
        """Work towards it from the next turn on."""
        memory = cleared(self._memory) if aim.memory is None else aim.memory
        recreate = memory.recreate if aim.recreate is None else aim.recreate
        if aim.memory is not None:
            self._last_heard_before = memory.last_event
        self._memory = replace(memory, pending=aim.pending, last_good=aim.last_good, recreate=recreate)
        if (self._desired.project, self._desired.adopted) != (aim.desired.project, aim.desired.adopted):
            self._look_needed = True  # others are ours
        self._desired, self.plan = aim.desired, None
        self._repeats = Repeats()
        self._applier = self._new_applier(aim.generation)
        self._ownership.take_up(aim.desired.project, memory.marks)
        self._observer.adopted = aim.desired.adopted
        self._keep_memory()
        self._aimed.set()
        self._wake.set()

    def accept(self, *, on_trial: bool) -> None:
        """The generation is good. While it is on trial, the containers of the last good one stay."""
        last_good = self._memory.last_good if on_trial else {}
        self._memory = replace(self._memory, pending=False, last_good=last_good)
        self._wake.set()

    def keep_trying(self) -> None:
        """The generation has failed, and there is none to go back to."""
        self._memory = replace(self._memory, pending=False, crash_loops={})
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        """Let `run` end, once the steps under way have ended or had their time."""
        self._closing.set()
        self._aimed.set()  # where there was none, there is nothing to end

    @property
    def steps_under_way(self) -> tuple[AnyStep, ...]:
        return self._steps.under_way

    async def run(self) -> None:
        """Keep the Engine as desired, from the first aim until `close`."""
        await self._aimed.wait()
        async with asyncio.TaskGroup() as tasks:
            work = (self._follow_events(), self._take_turns(tasks), self._look_at_processes())
            looking = [tasks.create_task(one) for one in work]
            await self._closing.wait()
            for task in looking:
                task.cancel()
            self._gates.close()
            await self._steps.end()

    async def _take_turns(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self.turn(tasks)
            await self._clock.wait(self._wake, self._until_next_turn())

    def _new_applier(self, generation: int) -> Applier:
        return Applier(
            self._engine,
            mint=self._ownership.mint,
            generation=generation,
            all_endpoints=self._surroundings.all_endpoints,
            leaving=self._surroundings.leaving,
        )

    async def settle(self) -> Plan:
        """Work until nothing is left to do, without following events. Raises EngineError when the Engine goes away."""
        async with asyncio.TaskGroup() as tasks:
            await self.turn(tasks)
            while self.trouble is None and not self.is_settled:
                await self._clock.wait(self._wake, self._until_next_turn())
                await self.turn(tasks)
        if self.trouble is not None:
            raise self.trouble
        assert self.plan is not None
        return self.plan

    @property
    def is_settled(self) -> bool:
        return self.plan is not None and self.plan.settled and not self._steps.under_way

    async def turn(self, tasks: asyncio.TaskGroup) -> None:
        self._wake.clear()
        desired = self._desired
        try:
            await self._refresh_picture()
            actual = await self._observer.actual(desired)
        except EngineError as error:
            before, self.trouble, self._look_needed = self.trouble, error, True
            if before is None:
                log.warning("%s", error.message)
                self.trouble_since = self._clock.now()
            if type(before) is not type(error):
                self._listener.trouble_changed()
            return
        self.trouble, self.trouble_since, self._retry_in = None, 0.0, 0.1
        if self._desired is not desired:
            return  # aimed elsewhere meanwhile, which has woken us: what is in use depends on what is desired
        self.actual = actual
        self.plan = plan = make_plan(desired, actual, self._memory, self._clock.now())
        busy, now = self._under_way(*STOPPING), self._clock.now()
        memory = remember_plan(self._memory, plan, self._observer.containers, busy=busy, now=now)
        self._memory = replace(memory, marks=self._ownership.known)
        again_in = self._listener.planned(plan)
        self._plan_again_at = self._clock.monotonic() + again_in if again_in else 0.0
        if self.plan is plan:  # else it has led to another desired state
            self._start_steps(plan.steps, tasks)
            self._gates.watch(plan.slots, tasks)
        self._keep_memory()

    # the picture

    async def _refresh_picture(self) -> None:
        self._note_ended(self._steps.take_ended())
        ended = self._steps.ended
        touched, self._touched = self._touched, set()
        anew, self._look_needed = self._look_needed, False  # first: whatever asks for another look meanwhile gets it
        if anew:  # first the events that were missed: who stopped what decides how the picture is read
            await self._note_engine_start()
            if self._memory.last_event:
                until = self._clock.now()
                for event in await self._engine.past_events(since=min(self._memory.last_event, until), until=until):
                    self._take_event(event)
        if anew or self._clock.monotonic() >= self._look_again_at:
            await self._observer.look(thorough=anew or self._looks % THOROUGH_EVERY == 0)
            self._look_again_at, self._looks = self._clock.monotonic() + RESYNC, self._looks + 1
        else:
            await self._observer.refresh(touched, later=self._steps.starting)
        if anew:
            # What ran when we last looked and ended without an event ended with its Engine: no finished job.
            ended_now = {container.id for container in self._observer.containers if container.state is State.EXITED}
            interrupted = ended_now.intersection(self._memory.running) - self._memory.ended.keys()
            stopped = self._memory.stopped | dict.fromkeys(interrupted, self._clock.now())
            self._memory = replace(self._memory, stopped=stopped)
        self._steps.free(ended)

    async def _note_engine_start(self) -> None:
        """The Engine makes its default network anew at every start, after it has ended what a crash left running."""
        default = [n.created for n in await self._engine.networks() if n.name == DEFAULT_NETWORK]
        self._engine_start = max(default, default=0.0)

    def _until_next_turn(self) -> float:
        if self.trouble is not None:
            self._retry_in = min(self._retry_in * 2, RECONNECT_MOST)
            return self._retry_in
        waits = [self._look_again_at - self._clock.monotonic()]
        if self._plan_again_at:
            waits.append(self._plan_again_at - self._clock.monotonic())
        if self.unsaved is not None:
            waits.append(SAVE_AGAIN)
        if self.plan is not None:
            waits += (time - self._clock.now() for time in (self.plan.retry_at, self.plan.next_run) if time)
        return max(SHORTEST_WAIT, min(waits))

    # the memory

    def _keep_memory(self) -> None:
        """A full disk stops nothing that runs. Until it can be written, the next agent would know less."""
        before, self.unsaved = self.unsaved, None
        if self._memory != self._saved:
            try:
                self._save(self._memory)
                self._saved = self._memory
            except Dom0Error as error:
                if before is None:
                    log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
                self.unsaved = error
        if (before is None) != (self.unsaved is None):
            self._listener.trouble_changed()

    async def _look_at_processes(self) -> None:
        while True:
            await asyncio.sleep(PROCESSES_EVERY)
            if self._observer.look_at_processes():
                self._wake.set()

    # steps

    def _under_way(self, *kinds: type[AnyStep]) -> set[str]:
        """IDs of the containers of such steps."""
        return {getattr(step, "container_id", "") for step in self._steps.under_way if isinstance(step, kinds)}

    def _start_steps(self, steps: Iterable[AnyStep], tasks: asyncio.TaskGroup) -> None:
        if self._closing.is_set():
            return
        due, now = self._steps.reserve(steps), self._clock.now()
        stops = [step for step in due if isinstance(step, STOPPING)]
        for stop in stops:
            self._memory = replace(self._memory, stopped=self._memory.stopped | {stop.container_id: now})
            if isinstance(stop, RestartContainer) and stop.reason == UNHEALTHY:
                self._memory = count_crash(self._memory, stop.container_id, now)
        if stops:
            self._keep_memory()  # before they begin
        for step in due:
            self._steps.start(step, self._applier, tasks)

    def _note_ended(self, ended: Iterable[StepResult]) -> None:
        for one in ended:
            step, refused, now = one.step, self._memory.refused, self._clock.now()
            self._touched |= one.touched
            if one.error is not None or isinstance(step, OF_GROUND):
                self._observer.ground_is_dirty = True
            if one.error is None:
                if refusal := self._repeats.note(step, self._clock.monotonic(), now):
                    log.warning("%s", refusal.message)
                    refused = refused | {step.lock: refusal}
                else:
                    refused = without(refused, step.lock)
                if isinstance(step, RunPostStart):
                    done = self._memory.post_started | {step.container_id: step.started}
                    self._memory = replace(self._memory, post_started=done)
            elif isinstance(one.error, EngineUnreachable):
                self._look_needed = True
            elif not one.is_outdated:  # else our picture was old: another look is all it needs
                if isinstance(step, CreateContainer):
                    self._look_needed = True  # the name may be taken by what we did not know of
                published = self.actual.published if self.actual else None
                refusal = refusal_of(step, one.error, refused.get(step.lock), now, published=published)
                refused = refused | {step.lock: refusal}
            self._memory = replace(self._memory, refused=refused)
            self._listener.step_ended(step, one.error, one.seconds)

    def _note_gate(self, container: Container, passed: bool) -> None:
        if passed:
            self._memory = replace(
                self._memory, health_passed=self._memory.health_passed | {container.id: container.started}
            )
        else:
            self._touched.add(container.id)
        self._wake.set()

    # events

    async def _follow_events(self) -> None:
        pause = 0.1
        while True:
            try:
                await self._note_engine_start()
                now = self._clock.now()
                since = min(self._memory.last_event or now, now)
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
        """Each once: a reconnect tells some again. Their times are not always in order, and the clock may jump."""
        heard = (event.time, event.type, event.action, event.id)
        if event.time == self._last_heard_before or heard in self._heard:
            return
        self._heard.append(heard)
        before = self._memory = replace(self._memory, last_event=event.time)
        is_news = self._observer.note(event)
        # before the Engine's start no person could reach it yet (seen on Docker 26.1)
        by_nobody_here = event.time < max(self._engine_start, self._surroundings.under_owner_until)
        if event.type == "container" and not by_nobody_here and self._observer.is_ours(event):
            self._listener.container_told(event, before)
            if is_news:
                self._memory = remember(before, event, stopping=self._under_way(StopContainer, GiveUpContainer))
        if not is_news:
            return
        if event.attributes.get("container", event.id) not in self._steps.starting:  # else the end of its step wakes us
            self._wake.set()


STOPPING = (StopContainer, GiveUpContainer, RestartContainer, RemoveContainer)
OF_GROUND = (CreateNetwork, CreateVolume, RemoveNetwork, ReplaceNetwork)


async def take_down(engine: Engine, desired: Desired, listener: LoopListener, *, limit: int, seal: Seal) -> Plan:
    """Stop and remove the project's containers, dependents first, and its networks. Volumes and images stay."""
    reconciler = Reconciler(
        engine,
        listener=listener,
        surroundings=Surroundings(steps=limit, all_endpoints=True),
        save=lambda _memory: None,
        seal=seal,
        save_seal=lambda _seal: None,
    )
    reconciler.aim(Aim(desired=desired))
    return await reconciler.settle()
