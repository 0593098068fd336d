"""Taking over a project of Docker Compose: what fits goes on, what fails goes back, and nothing ever runs twice."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.agent.foresee import Running, refuse
from dom0.agent.generations import Generations
from dom0.agent.status import Outcome
from dom0.engine.bodies import ContainerBody, EndpointSettings, HostConfig, Mount, NetworkingConfig, RestartPolicy
from dom0.engine.values import State
from dom0.errors import Conflict, InUse
from dom0.plan import labels
from dom0.plan.desired import Desired, Order, Slot, VolumeSpec
from dom0.testing.builders import asking, desired, slot
from dom0.testing.fake_engine import Call, Killed
from dom0.testing.rig import Rig, broken

RUNNING = State.RUNNING
MOUNT = Mount(type="volume", source="box_data", target="/data")
ALWAYS = RestartPolicy(name="always")


def service(name: str, compose_hash: str = "c1", **fields: Any) -> Slot:
    made = slot(name, order=Order.STOP_FIRST, volumes=("box_data",), restart_policy="always", **fields)
    own_labels = made.create.labels | {labels.COMPOSE_HASH: compose_hash}
    return asking(made, host={"mounts": (MOUNT,), "restart_policy": ALWAYS}, labels=own_labels)


def project(*slots: Slot) -> Desired:
    return desired(*slots, volumes=(VolumeSpec(key="data", name="box_data"),), shared=("shared",))


async def compose_up(rig: Rig, *names: str, start: bool = True) -> dict[str, str]:
    """As `docker compose up` in /srv/box; name -> ID."""
    person, found = rig.box.person, {}
    with contextlib.suppress(Conflict):  # it is there
        rig.box.docker.networks.make("box_default", {labels.COMPOSE_PROJECT: "box"}, "bridge")
    for name in names:
        own_labels = {
            labels.COMPOSE_PROJECT: "box",
            labels.COMPOSE_SERVICE: name,
            labels.COMPOSE_NUMBER: "1",
            labels.COMPOSE_HASH: "c1",
            labels.COMPOSE_WORKING_DIR: "/srv/box",
            labels.COMPOSE_ONEOFF: "False",
        }
        body = ContainerBody(
            image="app:latest",
            cmd=("sleep", "1000000"),
            labels=own_labels,
            host_config=HostConfig(mounts=(MOUNT,), restart_policy=ALWAYS, network_mode="box_default"),
            networking_config=NetworkingConfig(endpoints_config={"box_default": EndpointSettings()}),
        )
        found[f"box-{name}-1"] = await person.create_container(f"box-{name}-1", body)
        if start:
            await person.start_container(f"box-{name}-1")
    return found


def ids(rig: Rig) -> dict[str, str]:
    return {container.name: container.id for container in rig.box.docker.containers.values()}


async def test_what_fits_is_kept_running_and_the_rest_is_replaced(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    theirs = await compose_up(rig, "db", "web")
    started = rig.box.docker.container("box-db-1").started
    rig.project = project(service("db"), service("web", "c2"))
    async with rig.running() as machine:
        assert (await rig.up()).problems[0].code == "project-in-use"
        assert (await rig.up(adopt=True)).outcome is Outcome.GOOD
        await rig.box.until(lambda: rig.box.names() == {"box-db-1": RUNNING, "box-web-1": RUNNING})
        assert ids(rig)["box-db-1"] == theirs["box-db-1"]
        assert rig.box.docker.container("box-db-1").started == started
        assert ids(rig)["box-web-1"] != theirs["box-web-1"]
        assert (await rig.up()).outcome is Outcome.GOOD
        assert machine.history()[0].number == 2
    async with rig.running():
        await rig.box.person.kill_container("box-db-1")
        await rig.box.until(lambda: rig.box.names()["box-db-1"] == RUNNING)
        assert ids(rig)["box-db-1"] == theirs["box-db-1"]
        rig.project = project(service("db", "c3", hash="h3"), service("web", "c2"))
        assert (await rig.up()).outcome is Outcome.GOOD
        await rig.box.until(lambda: len(ids(rig)) == 2 and ids(rig)["box-db-1"] != theirs["box-db-1"])


async def test_an_adoption_that_fails_leaves_the_project_as_it_was(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    theirs = await compose_up(rig, "db", "web")
    rig.project = project(service("db"), broken(service("web", "c2")))
    async with rig.running() as machine:
        assert (await rig.up(adopt=True)).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().generation is None)
        assert ids(rig) == theirs
        assert set(rig.box.names().values()) == {RUNNING}
        assert {c.policy for c in rig.box.docker.containers.values()} == {("always", 0)}
        assert [problem.code for problem in machine.status().problems] == ["project-in-use"]
        await rig.box.person.stop_container("box-db-1")  # it is Compose's again
        await rig.box.until(lambda: rig.box.names()["box-db-1"] == State.EXITED)
    async with rig.running() as machine:
        await rig.box.until(lambda: bool(machine.status().problems))
        assert ids(rig) == theirs


async def test_after_an_adoption_that_failed_another_project_may_come(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    theirs = await compose_up(rig, "web")
    rig.project = project(broken(service("web", "c2")))
    async with rig.running() as machine:
        assert (await rig.up(adopt=True)).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().generation is None)
        web = slot("web", name="other-web-1", attachments=())
        own_labels = web.create.labels | {labels.PROJECT: "other"}
        web = asking(web, host={"network_mode": "none"}, labels=own_labels)
        rig.project = Desired(project="other", slots=(web,))
        assert (await rig.up()).outcome is Outcome.GOOD
        await rig.box.person.kill_container("other-web-1")
        await rig.box.until(lambda: rig.box.names()["other-web-1"] == RUNNING)
        assert ids(rig).items() >= theirs.items()


async def test_a_stopped_project_is_taken_over_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    theirs = await compose_up(rig, "db", "web", start=False)
    rig.project = project(service("db"), service("web", "c2"))
    async with rig.running():
        assert (await rig.up(adopt=True)).outcome is Outcome.GOOD
        await rig.box.until(lambda: rig.box.names() == {"box-db-1": RUNNING, "box-web-1": RUNNING})
        assert ids(rig)["box-db-1"] == theirs["box-db-1"]


async def test_an_older_generation_of_the_project_knows_what_was_taken_over_since(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.project = project(service("db"), service("web"))
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    Generations(tmp_path / "state").leave_current()  # dom0 down
    for name in rig.box.names():
        await rig.box.person.remove_container(name, force=True)
    await rig.box.person.remove_network("box_default")
    theirs = await compose_up(rig, "db", "web")
    async with rig.running() as machine:
        assert (await rig.up(adopt=True)).outcome is Outcome.GOOD
        assert [line async for line in machine.rollback(1)][-1].outcome is Outcome.GOOD
        await rig.box.person.kill_container("box-db-1")
        await rig.box.until(lambda: rig.box.names() == {"box-db-1": RUNNING, "box-web-1": RUNNING})
        assert ids(rig) == theirs


@pytest.mark.parametrize("adopt", [False, True])
async def test_what_compose_runs_beside_a_project_that_is_ours_is_named_without_ending_ours(
    tmp_path: Path, adopt: bool
) -> None:
    """As after `docker compose --profile x up`: a second adoption there is none, and Compose's `down` would end all."""
    rig = Rig(tmp_path)
    theirs = await compose_up(rig, "db")
    rig.project = project(service("db"))
    async with rig.running() as machine:
        assert (await rig.up(adopt=True)).outcome is Outcome.GOOD
        theirs |= await compose_up(rig, "web")
        rig.project = project(service("db"), service("web"))
        problem = (await rig.up(adopt=adopt)).problems[0]
        assert problem.code == "project-in-use"
        assert problem.hint.endswith("docker rm -f box-web-1")
        running = Running("box", Generations(tmp_path / "state").current()[0])
        planned = replace(rig.project, adopted={theirs["box-web-1"]: {}} if adopt else {})
        with pytest.raises(InUse, match="beside those of dom0: box-web-1"):
            await refuse(rig.engine, planned, running)
        assert (ids(rig), machine.status().converged) == (theirs, True)


def never_two(rig: Rig, name: str) -> None:
    running = [c.name for c in rig.box.docker.containers.values() if c.runs and c.name.endswith(name)]
    assert len(running) <= 1, running


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("calls", range(4, 64, 3))
async def test_killed_anywhere_nothing_runs_twice_and_nothing_is_lost(tmp_path: Path, calls: int, fails: bool) -> None:
    rig = Rig(tmp_path)
    theirs = await compose_up(rig, "db", "web")
    rig.project = project(service("db"), broken(service("web", "c2")) if fails else service("web", "c2"))
    left = calls

    def kill(_call: Call) -> None:
        nonlocal left
        never_two(rig, "box-web-1")
        left -= 1
        if left <= 0:
            raise Killed

    with contextlib.suppress(BaseExceptionGroup):
        async with rig.running():
            rig.engine.before = kill
            await rig.up(adopt=True)
            raise Killed
    has_begun = (tmp_path / "state" / "current").exists()
    async with rig.running() as machine:
        rig.engine.before = lambda _call: never_two(rig, "box-web-1")
        if not has_begun:
            assert ids(rig) == theirs
            await rig.up(adopt=True)
        if fails:
            await rig.box.until(lambda: machine.status().generation is None)
            await rig.box.until(lambda: ids(rig) == theirs)
            assert set(rig.box.names().values()) == {RUNNING}
        else:
            await rig.box.until(lambda: rig.box.names() == {"box-db-1": RUNNING, "box-web-1": RUNNING})
            await rig.box.until(lambda: ids(rig)["box-web-1"] != theirs["box-web-1"])
            assert ids(rig)["box-db-1"] == theirs["box-db-1"]
