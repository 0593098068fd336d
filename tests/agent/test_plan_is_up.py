"""`dom0 plan` says what `dom0 up` then does: random projects, random changes, random meddling, on the fake Engine.

What happened is read from the Engine before and after, independent of the planner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dom0.agent.foresee import foresee, read_running
from dom0.agent.source import Candidate
from dom0.agent.status import Outcome
from dom0.compose.model import Project
from dom0.engine.bodies import ContainerBody
from dom0.errors import ProjectError
from dom0.plan.desired import Desired
from dom0.plan.expand import expand
from dom0.plan.facts import Facts
from dom0.testing import virtual_time
from dom0.testing.builders import image_id
from dom0.testing.fake_container import FakeContainer
from dom0.testing.random_projects import IMAGES, Projects
from dom0.testing.rig import Rig

# Chance reaches any line, once: it says nothing of what is tested, and counting takes longer than the tests.
pytestmark = pytest.mark.no_cover

CASES, EACH = 40, 5
AT_REST = 100.0  # seconds, virtual: no pause of the agent's is longer


class Life(NamedTuple):
    id: str
    started: float
    runs: bool
    networks: frozenset[tuple[str, int]]  # with the identity of the connection
    connections: tuple[object, ...]  # themselves, so that no other one gets that identity
    policy: tuple[str, int]
    memory: int
    name: str


Happened = set[tuple[str, str, str]]


def desired_of(rig: Rig, project: Project) -> Desired:
    images = {name: rig.box.docker.images.all[image_id(name)] for name in IMAGES}
    return expand(project, Facts(images=images))


@pytest.mark.parametrize("case", range(CASES))
async def test_the_plan_printed_before_is_what_up_then_does(tmp_path: Path, case: int) -> None:
    for seed in range(case * EACH, (case + 1) * EACH):
        (tmp_path / str(seed)).mkdir()
        await compare(Rig(tmp_path / str(seed)), seed)


async def compare(rig: Rig, seed: int) -> None:
    projects = Projects(seed)
    project = projects.project()
    try:
        rig.project = desired_of(rig, project)
    except ProjectError:
        return
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        for round_ in range(2):
            await meddle(rig, projects)
            changed = projects.changed(project)
            try:
                rig.project = desired_of(rig, changed)
            except ProjectError:
                continue
            project = changed
            before = picture(rig)
            candidate = Candidate(rig.project, rig.path / "files", rig.image)
            plan = await foresee(rig.engine, candidate, read_running(rig.path / "state", None), virtual_time.now())
            last = await rig.up()
            await asyncio.sleep(AT_REST)
            assert last.outcome is Outcome.GOOD, (seed, round_, last.problems)
            planned = {(change.action, change.kind, change.name) for change in plan}
            done = happened(before, picture(rig))
            assert planned == done, f"{seed}, {round_}: planned {planned - done}, done {done - planned}"


async def meddle(rig: Rig, projects: Projects) -> None:
    """What a person does to a machine between two `dom0 up`."""
    for _ in range(projects.random.randint(0, 2)):
        running = [c for c in rig.box.docker.containers.values() if c.state == "running" and c.name.startswith("box-")]
        if not running:
            return
        chosen = projects.random.choice(running)
        await projects.random.choice(MEDDLING)(rig, chosen)
        await asyncio.sleep(AT_REST)


async def stop(rig: Rig, container: FakeContainer) -> None:
    await rig.box.person.stop_container(container.id)


async def remove(rig: Rig, container: FakeContainer) -> None:
    await rig.box.person.remove_container(container.id, force=True)


async def kill(rig: Rig, container: FakeContainer) -> None:
    await rig.box.person.kill_container(container.id)


async def run_a_foreign_one(rig: Rig, container: FakeContainer) -> None:
    """Under a name that a service may want next."""
    for name in ("box-api-1", "box-db-1", "box-web-1"):
        if name not in rig.box.names():
            foreign = await rig.box.person.create_container(name, ContainerBody(image="app", cmd=("sleep", "1000")))
            await rig.box.person.start_container(foreign)
            return


MEDDLING: tuple[Callable[[Rig, FakeContainer], Awaitable[None]], ...] = (stop, remove, kill)


def picture(rig: Rig) -> dict[str, dict[str, Life]]:
    docker = rig.box.docker
    containers = {
        slot_of(c): Life(
            c.id,
            c.started,
            c.state == "running",
            frozenset((name, id(e)) for name, e in c.endpoints.items()),
            tuple(c.endpoints.values()),
            c.policy,
            c.host.memory,
            c.name,
        )
        for c in docker.containers.values()
    }
    networks = {n.name: Life(n.id, 0, False, frozenset(), (), ("", 0), 0, n.name) for n in docker.networks.all.values()}
    volumes = {v.name: Life(v.name, 0, False, frozenset(), (), ("", 0), 0, v.name) for v in docker.volumes.all.values()}
    return {"container": containers, "network": networks, "volume": volumes}


def slot_of(container: FakeContainer) -> str:
    service, number = container.labels.get("dom0.service", ""), container.labels.get("dom0.number", "")
    return f"box-{service}-{number}" if service else container.name


def happened(before: dict[str, dict[str, Life]], after: dict[str, dict[str, Life]]) -> Happened:
    found: Happened = set()
    for kind, was in before.items():
        now = after[kind]
        found |= {("create", kind, name) for name in now.keys() - was.keys()}
        found |= {("remove", kind, name) for name in was.keys() - now.keys()}
        for name in was.keys() & now.keys():
            if action := what_became(was[name], now[name]):
                found.add((action, kind, name))
    return found


def what_became(was: Life, now: Life) -> str:
    if was.id != now.id:
        return "replace"
    if was.runs != now.runs:
        return "start"
    if was.started != now.started:
        return "restart"
    if (was.networks, was.policy, was.memory, was.name) != (now.networks, now.policy, now.memory, now.name):
        return "update"
    return ""
