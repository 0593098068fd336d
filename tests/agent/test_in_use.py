"""Never two writers on a volume: what is asked for is refused or waits, and comes when the other one has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.structs import replace

from dom0.agent.generations import Generation, Generations
from dom0.agent.reconcile import RESYNC
from dom0.agent.status import Outcome
from dom0.engine.bodies import ContainerBody, HostConfig, Mount
from dom0.engine.values import State
from dom0.plan.desired import Slot, VolumeSpec
from dom0.testing.box import Box
from dom0.testing.builders import asking, desired, slot
from dom0.testing.fake_engine import Call
from dom0.testing.rig import Rig

RUNNING = State.RUNNING
MOUNT = Mount(type="volume", source="box_data", target="/data")
VOLUME = VolumeSpec(key="data", name="box_data")
COMPOSE = {
    "com.docker.compose.project": "box",
    "com.docker.compose.service": "web",
    "com.docker.compose.container-number": "1",
}


def with_data(of: Slot) -> Slot:
    return replace(asking(of, host={"mounts": (MOUNT,)}), volumes=("box_data",))


async def run_foreign(box: Box, name: str = "foreign", **labels: str) -> None:
    host = HostConfig(mounts=(MOUNT,))
    body = ContainerBody(image="app:latest", cmd=("sleep", "100000"), labels=labels, host_config=host)
    await box.person.start_container(await box.person.create_container(name, body))


async def test_a_service_waits_for_as_long_as_another_container_writes_to_its_volume() -> None:
    box = Box(desired(with_data(slot("web")), volumes=(VOLUME,)))
    await run_foreign(box)
    async with box.running() as loop:
        await box.at_rest()
        assert box.names() == {"foreign": RUNNING}
        assert [problem.code for problem in loop.plan.problems] == ["volume-in-use"]  # type: ignore[union-attr]
        await box.person.stop_container("foreign")
        await box.at_rest()
        assert box.names()["box-web-1"] == RUNNING


async def test_a_writer_that_came_later_keeps_ours_from_being_started_again() -> None:
    box = Box(desired(with_data(slot("web")), volumes=(VOLUME,)))
    async with box.running() as loop:
        await box.at_rest()
        await run_foreign(box)
        await box.at_rest()
        assert box.names() == {"box-web-1": RUNNING, "foreign": RUNNING}
        assert loop.plan is not None
        assert loop.plan.well
        assert [problem.code for problem in loop.plan.problems] == ["volume-in-use"]
        await box.person.kill_container("box-web-1")
        await box.at_rest()
        assert box.names() == {"box-web-1": State.EXITED, "foreign": RUNNING}
        await box.person.remove_container("foreign", force=True)
        await box.at_rest()
        assert box.names() == {"box-web-1": RUNNING}


async def test_a_container_of_ours_that_was_removed_writes_no_more() -> None:
    box = Box(desired(with_data(slot("web")), volumes=(VOLUME,)))
    async with box.running() as loop:
        await box.at_rest()
        await asyncio.sleep(RESYNC)  # it is in a full list, too
        await box.at_rest()
        await box.person.remove_container("box-web-1", force=True)
        await box.at_rest()
        assert loop.plan is not None
        assert loop.plan.problems == ()
        assert box.names() == {"box-web-1": RUNNING}


async def test_what_is_in_use_is_not_replaced_when_another_version_is_asked_for_in_the_middle_of_a_look() -> None:
    box = Box(desired(slot("sshd", defer_while=("sshd: ada@",))))
    async with box.running() as loop:
        await box.at_rest()
        box.docker.processes["box-sshd-1"] = ("sshd: ada@pts/0",)
        (before,) = box.docker.containers

        def ask_for_another(call: Call) -> None:
            if call.name == "containers":
                box.engine.before = lambda _call: None
                box.aim(desired(slot("sshd", hash="h2", defer_while=("sshd: ada@",))))

        box.engine.before = ask_for_another
        await asyncio.sleep(RESYNC)
        await box.at_rest()
        assert set(box.docker.containers) == {before}
        box.docker.processes.clear()
        await box.until(lambda: set(box.docker.containers) != {before})
        await box.at_rest()
        assert loop.plan is not None
        assert loop.plan.well


async def test_a_first_start_beside_a_compose_project_of_that_name_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await run_foreign(rig.box, "box-web-1", **COMPOSE)
    async with rig.running() as machine:
        await rig.box.until(lambda: bool(machine.status().problems))
        assert [problem.code for problem in machine.status().problems] == ["project-in-use"]
        last = await rig.up()
        assert (last.outcome, last.problems[0].code) == (Outcome.FAILED, "project-in-use")
        assert (rig.box.names(), machine.history()) == ({"box-web-1": RUNNING}, [])
        await rig.box.person.remove_container("box-web-1", force=True)
        await rig.outcome(Outcome.GOOD, 1)


async def test_a_project_does_not_write_into_what_another_one_has_left(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    state = tmp_path / "state"
    place = state / "project" / "data"
    bound = slot("web")
    rig.project = desired(asking(bound, host={"binds": (f"{place}:/data:rw",)}))
    before = replace(rig.project, project="old")
    good = Generation(number=0, created=1.0, cause="dom0 up", dom0_image="", desired=before, outcome=Outcome.GOOD)
    Generations(state).add(good, tmp_path / "files")
    place.mkdir(parents=True)
    (place / "rows").write_text("of old")
    async with rig.running() as machine:
        await rig.box.until(lambda: bool(machine.status().problems))
        last = await rig.up()
        assert (last.outcome, last.problems[0].code) == (Outcome.FAILED, "project-in-use")
        assert f"{place}, where services of old have left data" in last.problems[0].title
        assert rig.box.names() == {}
        place.rename(tmp_path / "kept")
        assert (await rig.up()).outcome is Outcome.GOOD
        place.mkdir(exist_ok=True)
        (place / "rows").write_text("of box")
        assert (await rig.up(force=True)).outcome is Outcome.GOOD


async def test_an_up_that_would_make_a_second_writer_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await run_foreign(rig.box)
        rig.project = desired(with_data(slot("web", hash="h2")), volumes=(VOLUME,))
        before = rig.box.names()
        last = await rig.up()
        assert (last.outcome, last.problems[0].code) == (Outcome.FAILED, "project-in-use")
        assert "box_data is written by foreign" in last.problems[0].title
        assert (rig.box.names(), len(machine.history())) == (before, 1)
        rig.project = replace(rig.project, shared=("box_data",))
        assert (await rig.up()).outcome is Outcome.GOOD
