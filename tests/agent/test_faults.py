"""The loop walked through faults: killed before and after every single call, and among random doings of persons,
processes and Engines. It always arrives at what was asked, and nothing foreign is ever touched.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, RestartPolicy
from dom0.engine.values import State
from dom0.errors import EngineError
from dom0.plan import labels
from dom0.plan.desired import Condition, Dependency, Desired, HealthTest, Order
from dom0.testing.box import Box
from dom0.testing.builders import asking, desired, hooked, network_spec, slot
from dom0.testing.fake_engine import Call, Killed

FOREIGN = "somebody-elses"
FOREIGN_BODY = ContainerBody(
    image="app", cmd=("sleep", "1000000"), host_config=HostConfig(restart_policy=RestartPolicy(name="always"))
)
SET_UP = "/set-up"
JOB = "box-job-1"  # its container may be gone: that it completed is remembered


def machine(version: str, *, network: str = "n1", scale: int = 2) -> Desired:
    """A database that is waited for, replicas that are replaced start-first, a job, something stop-first."""
    db = slot("db", hash=version, order=Order.STOP_FIRST, health=HealthTest(argv=("true",)))
    db = asking(db, healthcheck=HealthConfig(test=("CMD", "true"), interval=30_000_000_000))
    job = slot("job", hash=version)
    job = asking(job, cmd=("true",))
    needs = (
        Dependency(service="db", condition=Condition.HEALTHY, restart=True),
        Dependency(service="job", condition=Condition.COMPLETED),
    )
    webs = [slot("web", hash=version, number=n, depends_on=needs, restart_policy="always") for n in range(1, scale + 1)]
    webs = [hooked(web, post_start=f"touch {SET_UP}", pre_stop="true") for web in webs]
    return replace(desired(db, job, *webs), networks=(network_spec(network),))


async def make_foreign(box: Box) -> None:
    await box.person.create_container(FOREIGN, FOREIGN_BODY)
    await box.person.start_container(FOREIGN)
    box.docker.events.end_streams()


def assert_as_asked(box: Box, want: Desired) -> None:
    found = {container.name: container for container in box.docker.containers.values()}
    assert found.pop(FOREIGN).state is State.RUNNING
    assert found.keys() | {JOB} == {slot.name for slot in want.slots}
    for slot_ in want.slots:
        container = found.get(slot_.name)
        if container is None:
            continue
        assert container.labels[labels.HASH] == slot_.hash
        assert container.state is (State.EXITED if slot_.service == "job" else State.RUNNING)
        assert (SET_UP in container.files) is (slot_.service == "web")


async def live(box: Box) -> None:
    """Run the loop until it rests; where it is killed, run another one."""
    rested = False
    while not rested:
        try:
            async with box.running():
                await box.at_rest()
                rested = True
        except* Killed:
            rested = False


def kill_once(at: int) -> Callable[[Call], None]:
    calls = itertools.count()

    def hook(_call: Call) -> None:
        if next(calls) == at:
            raise Killed

    return hook


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(120))
async def test_a_kill_at_any_call_loses_nothing(at: int, when: str) -> None:
    box = Box(machine("h1"))
    await make_foreign(box)
    setattr(box.engine, when, kill_once(at))
    await live(box)
    assert_as_asked(box, box.desired)
    setattr(box.engine, when, kill_once(at))
    box.desired = machine("h2", network="n2", scale=1)
    await live(box)
    assert_as_asked(box, box.desired)


class Trouble:
    """Random doings, a seed each. What a person stops on purpose is started again by hand, as it would stay stopped."""

    def __init__(self, box: Box, seed: int) -> None:
        self.box = box
        self.random = random.Random(seed)  # noqa: S311 -- a test's dice
        self.doings = (self.kill, self.remove, self.rename, self.disconnect, self.restart, self.engine, self.agent)

    async def cause(self) -> None:
        with contextlib.suppress(EngineError):  # it was gone, or not running: persons meet that too
            await self.random.choice(self.doings)()

    def victim(self) -> str:
        ours = sorted(c.id for c in self.box.docker.containers.values() if c.name != FOREIGN)
        return self.random.choice(ours) if ours else "none"

    async def kill(self) -> None:
        await self.box.person.kill_container(self.victim())

    async def remove(self) -> None:
        await self.box.person.remove_container(self.victim(), force=True)

    async def rename(self) -> None:
        await self.box.person.rename_container(self.victim(), f"renamed-{self.random.randrange(10**6)}")

    async def disconnect(self) -> None:
        await self.box.person.disconnect_network("box_default", self.victim(), force=True)

    async def restart(self) -> None:
        victim = self.victim()
        await self.box.person.stop_container(victim)
        await self.box.person.start_container(victim)

    async def engine(self) -> None:
        self.box.docker.restart_engine(crash=self.random.random() < 0.5)

    async def agent(self) -> None:
        self.box.engine.before = kill_once(self.random.randrange(10))


@pytest.mark.no_cover  # chance reaches any line, and counting takes longer than the tests
@pytest.mark.parametrize("seed", range(60))
async def test_random_faults_always_end_in_what_was_asked(seed: int) -> None:
    box = Box(machine("h1"))
    await make_foreign(box)
    await live(box)
    trouble = Trouble(box, seed)
    for round_ in range(6):
        box.desired = machine(f"h{round_ // 2}", network=f"n{round_ // 3}", scale=1 + round_ % 3)
        for _ in range(trouble.random.randrange(1, 6)):
            await trouble.cause()
        await live(box)
    await forgive(box)
    assert_as_asked(box, box.desired)


async def forgive(box: Box) -> None:
    """As `dom0 up`: budgets that so much trouble has used up start anew."""
    box.engine.before = lambda _call: None
    box.memory = replace(box.memory, crash_loops={}, crashes={}, refused={}, stopped_by_person={})
    await live(box)


async def test_a_plan_for_what_stands_is_empty() -> None:
    box = Box(machine("h1"))
    async with box.running() as loop:
        await box.at_rest()
        plan = loop.plan
    assert plan is not None
    assert plan.steps == ()
