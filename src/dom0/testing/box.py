"""A machine in memory and in virtual time: the fake Engine below, the real loop above."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dom0.agent.processes import Processes
from dom0.agent.reconcile import Aim, Reconciler, Surroundings
from dom0.engine.values import Container, Event, Image
from dom0.errors import EngineError
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory
from dom0.plan.ownership import Seal
from dom0.plan.planner import Plan
from dom0.plan.steps import AnyStep
from dom0.plan.text import say_step
from dom0.testing.builders import image_id
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.virtual_time import LoopClock

IMAGES = ("app", "app2")
PATIENCE = 3600.0  # virtual seconds


class FakeProcesses(Processes):
    """The host's, as tests set them: those that ended, and those with an old socket."""

    def __init__(self) -> None:
        self.ended: set[int] = set()
        self.cut_off: set[int] = set()

    def has_ended(self, pid: int) -> bool:
        return pid in self.ended

    def has_old_socket(self, container: Container) -> bool:
        return container.pid in self.cut_off


class Unheard:
    """Listens to the loop, and does nothing about it."""

    def planned(self, _plan: Plan) -> float:
        return 0.0

    def step_ended(self, _step: AnyStep, _error: EngineError | None, _seconds: float) -> None:
        """Nobody is told."""

    def trouble_changed(self) -> None:
        """Nobody is told."""

    def container_told(self, _event: Event, _memory: Memory) -> None:
        """Nobody is told."""


class Box:
    """One Engine, one loop that may be killed and started again; its memory survives as the agent's file does."""

    def __init__(self, desired: Desired) -> None:
        self.docker = FakeDocker()
        for name in IMAGES:
            self.docker.images.all[image_id(name)] = Image(id=image_id(name), tags=(f"{name}:latest",))
        self.engine = FakeEngine(self.docker)
        self.person = FakeEngine(self.docker)
        self.desired = desired
        self.memory = Memory()
        self.seal = Seal()
        self.processes = FakeProcesses()
        self.loop: Reconciler

    def save(self, memory: Memory) -> None:
        self.memory = memory

    def save_seal(self, seal: Seal) -> None:
        self.seal = seal

    def start(self) -> Reconciler:
        self.loop = Reconciler(
            self.engine,
            listener=Unheard(),
            surroundings=Surroundings(steps=4, all_endpoints=True, processes=self.processes),
            save=self.save,
            seal=self.seal,
            save_seal=self.save_seal,
            clock=LoopClock(),
        )
        self.aim(self.desired, memory=self.memory, generation=0)
        return self.loop

    def aim(self, desired: Desired, *, memory: Memory | None = None, generation: int = 2) -> None:
        """As another generation does; what is remembered stays as it is."""
        memory = memory or self.loop.memory
        self.loop.aim(
            Aim(
                desired=desired,
                generation=generation,
                pending=memory.pending,
                last_good=memory.last_good,
                memory=memory,
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Reconciler]:
        loop = self.start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(loop.run())
            yield loop
            loop.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 -- the fake Engine has no event for every condition
                await asyncio.sleep(0.05)

    async def at_rest(self) -> None:
        """Settled, and still so a while later."""
        quiet = 0
        try:
            async with asyncio.timeout(PATIENCE):
                while quiet < 20:
                    await asyncio.sleep(0.1)
                    settled = self.loop.plan is not None and self.loop.plan.settled and not self.loop.steps_under_way
                    quiet = quiet + 1 if settled else 0
        except TimeoutError:
            raise AssertionError(f"never at rest: {self._state()}") from None

    def _state(self) -> str:
        assert self.loop.plan is not None
        slots = [f"{plan.slot.key} {plan.phase} ({plan.reason})" for plan in self.loop.plan.slots]
        steps = [f"{say_step(step)} ({step.reason})" for step in self.loop.plan.steps]
        return f"slots {slots}, steps {steps}, problems {self.loop.plan.problems}, containers {self.names()}"

    def names(self) -> dict[str, str]:
        """Name -> state of everything on the Engine."""
        return {container.name: container.state for container in self.docker.containers.values()}
