"""The steps under way: how many at once, and what came of each. Decides nothing about the next ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from dom0.agent.apply import Applier
from dom0.agent.clock import Clock
from dom0.engine.protocol import Engine
from dom0.engine.values import State
from dom0.errors import EngineError, EngineUnreachable, NotFound
from dom0.plan.steps import (
    AnyStep,
    CreateContainer,
    CreateNetwork,
    GiveUpContainer,
    RunPostStart,
    StartContainer,
    StopContainer,
    StopInScope,
)
from dom0.plan.text import say_step

log = logging.getLogger(__name__)

# steps that wait for people's processes, and of which kind: hooks that hang do not hold up stops
AWAITS = {StopContainer: "stop", StopInScope: "stop", GiveUpContainer: "stop", RunPostStart: "hook"}
WAITING = 64  # of each kind under way at once
BESIDE_NETWORKS = 4  # creates take this part of the limit while networks are created: all starts wait for those
END_WITHIN = 5.0  # seconds that steps are given when the agent ends; the next one goes on from what is cut off


class StepResult(msgspec.Struct, frozen=True):
    """What came of a step. `error`: what the Engine said against it; EngineUnreachable where that is not known.

    `is_outdated`: it was refused because its container, or the start that its hooks were for, is gone.
    """

    step: AnyStep
    seconds: float
    touched: frozenset[str] = frozenset()  # IDs of containers to look at again
    error: EngineError | None = None
    is_outdated: bool = False


class StepRunner:
    """A step holds its lock until `free`, not only until it has ended: first the picture has to show what it did."""

    def __init__(self, engine: Engine, *, limit: int, clock: Clock, wake: asyncio.Event) -> None:
        self._engine = engine
        self._limit = limit
        self._clock = clock
        self._wake = wake  # set when a step has ended
        self._by_lock: dict[str, AnyStep] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news: list[StepResult] = []
        self._ended: set[str] = set()  # locks

    @property
    def under_way(self) -> tuple[AnyStep, ...]:
        return tuple(self._by_lock.values())

    @property
    def starting(self) -> set[str]:
        """IDs of containers. An inspect of one would block the turn until the Engine has started it."""
        steps = (step for lock, step in self._by_lock.items() if lock not in self._ended)
        return {step.container_id for step in steps if isinstance(step, StartContainer)}

    def reserve(self, steps: Iterable[AnyStep]) -> list[AnyStep]:
        """Take the locks of those that may start now: each lock once, within the limits."""
        reserved = []
        for step in steps:
            if step.lock not in self._by_lock and self._has_room_for(step):
                self._by_lock[step.lock] = step
                reserved.append(step)
        return reserved

    def _has_room_for(self, step: AnyStep) -> bool:
        kind, under_way = AWAITS.get(type(step)), self._by_lock.values()
        if sum(AWAITS.get(type(other)) == kind for other in under_way) >= (WAITING if kind else self._limit):
            return False
        if not isinstance(step, CreateContainer) or not any(isinstance(other, CreateNetwork) for other in under_way):
            return True
        return sum(isinstance(other, CreateContainer) for other in under_way) < max(1, self._limit // BESIDE_NETWORKS)

    def start(self, step: AnyStep, applier: Applier, tasks: asyncio.TaskGroup) -> None:
        """One that is reserved."""
        task = tasks.create_task(self._run(step, applier))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take_ended(self) -> list[StepResult]:
        """Those since the last call."""
        news, self._news = self._news, []
        return news

    @property
    def ended(self) -> frozenset[str]:
        """Locks of those that have ended and hold them still."""
        return frozenset(self._ended)

    def free(self, locks: Iterable[str]) -> None:
        for lock in locks:
            del self._by_lock[lock]
            self._ended.discard(lock)

    async def end(self) -> None:
        """Wait for those under way, and cut off what takes too long."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=END_WITHIN)
            for task in late:
                task.cancel()

    async def _run(self, step: AnyStep, applier: Applier) -> None:
        log.info("%s (%s)", say_step(step), step.reason)
        began = self._clock.monotonic()
        touched: frozenset[str] = frozenset()
        refusal: EngineError | None = None
        is_outdated = False
        try:
            touched = await applier.apply(step)
        except EngineError as error:
            refusal = error
            if not isinstance(error, EngineUnreachable):
                log.warning("%s: %s", say_step(step), error.message)
                is_outdated = await self._is_outdated(step, error)
        if container_id := getattr(step, "container_id", ""):
            touched |= {container_id}
        seconds = self._clock.monotonic() - began
        self._news.append(StepResult(step, seconds, touched, refusal, is_outdated))
        self._ended.add(step.lock)
        self._wake.set()

    async def _is_outdated(self, step: AnyStep, error: EngineError) -> bool:
        container_id = getattr(step, "container_id", "")
        if not container_id or not (isinstance(step, RunPostStart) or isinstance(error, NotFound)):
            return False
        try:
            container = await self._engine.container(container_id)
        except NotFound:
            return True
        except EngineError:
            return False
        return isinstance(step, RunPostStart) and (container.state, container.started) != (State.RUNNING, step.started)
