"""A whole machine in memory and in virtual time, whose image can be replaced and whose project can be rewritten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from dom0.agent.boot import BootNotes
from dom0.agent.journal import Journal
from dom0.agent.machine import Machine
from dom0.agent.progress import Changes
from dom0.agent.pull import Audience
from dom0.agent.readiness import Readiness
from dom0.agent.reconcile import Surroundings
from dom0.agent.source import Candidate, Handed, Own
from dom0.agent.status import Outcome, Progress, PullStatus, UpRequest
from dom0.engine.bodies import HealthConfig
from dom0.errors import Dom0Error
from dom0.plan.desired import Desired, HealthTest, Slot
from dom0.testing.box import Box
from dom0.testing.builders import asking, desired, image_id, slot
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.virtual_time import LoopClock

OLD, NEW = image_id("app"), image_id("app2")
SURROUNDINGS = Surroundings(steps=4, all_endpoints=True)


def broken(of: Slot) -> Slot:
    return asking(of, cmd=("false",))


def unhealthy(of: Slot) -> Slot:
    check = HealthConfig(test=("CMD", "false"), interval=1_000_000_000, retries=2)
    return replace(asking(of, healthcheck=check), health=HealthTest(argv=("false",)))


class Rig:
    """`image` and `project` are what the next agent, or the next `dom0 up`, finds; as after `dom0 build`."""

    def __init__(self, path: Path) -> None:
        self.box = Box(Desired(project="box"))
        self.path = path
        self.image = OLD
        self.project = desired(slot("web"))
        self.refusal: Dom0Error | None = None
        self.boot = "0" * 8
        self.pause = 0.0  # seconds that it takes to read the project
        self.pulls: tuple[PullStatus, ...] = ()  # what is pulled meanwhile
        self.awaits_up = False  # whether `dom0 up` starts the next agent
        self.given: list[Handed] = []  # to each reading
        self.handed_over: list[str] = []
        self.boot_notes = BootNotes(path / "no boot.record")
        self.readiness = Readiness()
        self.machine: Machine
        self.engine: FakeEngine  # the machine's own view of it
        (path / "files").mkdir()
        (path / "files" / "web.conf").write_text("one")

    async def resolve(self, image: str, audience: Audience, handed: Handed) -> Candidate:
        self.given.append(handed)
        audience.show(self.pulls)
        try:
            await asyncio.sleep(self.pause)
        finally:
            audience.show(())
        if self.refusal is not None:
            raise self.refusal
        return Candidate(self.project, self.path / "files", image or self.image)

    async def hand_over(self, image: str) -> None:
        self.handed_over.append(image)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Machine]:
        self.engine = FakeEngine(self.box.docker)
        journal = Journal(self.path / "state", now=LoopClock().now, boot=self.boot)
        self.machine = Machine(
            self.engine,
            state=self.path / "state",
            own=Own(image=self.image, awaits_up=self.awaits_up),
            resolve=self.resolve,
            hand_over=self.hand_over,
            surroundings=SURROUNDINGS,
            changed=Changes(),
            readiness=self.readiness,
            boot_notes=self.boot_notes,
            journal=journal,
            clock=LoopClock(),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.machine.run())
                yield self.machine
                self.machine.close()
        finally:
            journal._forget_files()  # as the kernel does for who was killed

    async def outcome(self, outcome: Outcome, number: int) -> None:
        def reached() -> bool:
            return any((g.number, g.outcome) == (number, outcome) for g in self.machine.history())

        await self.box.until(reached)

    async def up(self, *, force: bool = False, adopt: bool = False, image: str = "") -> Progress:
        lines = [line async for line in self.machine.up(UpRequest(force=force, adopt=adopt, dom0_image=image))]
        return lines[-1]

    def hashes(self) -> set[str]:
        return {c.labels["dom0.hash"] for c in self.box.docker.containers.values() if c.state == "running"}

    def placed(self) -> str:
        return (self.path / "state" / "project" / "web.conf").read_text()
