"""What a farm wants this machine to run is brought up as by a person, and how it ended is known after any kill."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from dom0.agent.contract import helper_body
from dom0.agent.machine import Machine
from dom0.agent.role import RoleRunner
from dom0.agent.source import Own
from dom0.agent.status import Outcome
from dom0.engine.values import State
from dom0.errors import Busy, ProjectError
from dom0.names import HANDOVER
from dom0.plan.desired import Rollout
from dom0.plan.labels import BASE
from dom0.testing.builders import desired, image_id, slot
from dom0.testing.rig import NEW, OLD, Rig, broken, unhealthy

IMAGES = {"app": image_id("app")}


def runner(rig: Rig, machine: Machine) -> RoleRunner:
    return RoleRunner(rig.engine, machine, Own(image=rig.image), rig.hand_over)


async def test_it_becomes_a_generation_with_just_its_images(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("db"))
        assert runner(rig, machine).generation == 1
        assert await runner(rig, machine).run(NEW, IMAGES, after=1) == ""
        generation = machine.history()[0]
        assert (generation.number, generation.dom0_image, generation.outcome) == (2, NEW, Outcome.GOOD)
        assert rig.given[-1].images == IMAGES
        assert "farm" in {entry.actor for entry in machine.journal.read(0, 1000)}


async def test_what_fails_goes_back_and_says_why_also_to_who_asks_after_a_kill(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(unhealthy(slot("web", hash="h2")), rollout=Rollout(timeout=60.0))
        said = await runner(rig, machine).run(NEW, IMAGES, after=1)
        assert "web" in said
        await rig.box.until(lambda: machine.status().converged)
        count = len(machine.history())
    async with rig.running() as machine:
        assert await runner(rig, machine).run(NEW, IMAGES, after=1) != ""
        assert len(machine.history()) == count
        rig.project = desired(slot("web", hash="h3"))
        assert await runner(rig, machine).run(NEW, IMAGES, after=count) == ""  # another attempt


async def test_how_that_ends_which_was_called_off_is_waited_for_and_nothing_is_begun(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        asked, rig.pause = runner(rig, machine), 30.0
        assert await asked.find_end(NEW, after=1) == "it was called off before it was good"
        ends = []
        for project in (desired(unhealthy(slot("web", hash="h2"))), desired(slot("db"))):
            rig.project, after = replace(project, rollout=Rollout(timeout=60.0)), asked.generation
            begun = asyncio.create_task(asked.run(NEW, IMAGES, after=after))
            await asyncio.sleep(1.0)
            begun.cancel()
            ends.append(await asked.find_end(NEW, after=after))
        assert "web" in ends[0]
        assert ends[1] == ""
        made = [one.outcome for one in reversed(machine.history()) if one.dom0_image == NEW]
        assert made == [Outcome.FAILED, Outcome.GOOD]


async def test_what_is_refused_changes_nothing_and_says_why(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.refusal = ProjectError("web: no such image")
        assert await runner(rig, machine).run(NEW, IMAGES, after=1) == "web: no such image"
        assert len(machine.history()) == 1


async def test_one_on_another_base_takes_over_and_names_what_it_needs(rig: Rig) -> None:
    image = rig.box.docker.images.all[NEW]
    rig.box.docker.images.all[NEW] = replace(image, labels={BASE: image_id("another")})
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        with pytest.raises(Busy):
            await runner(rig, machine).run(NEW, {"nginx:1": OLD}, after=1)
        assert rig.handed_over == [NEW]
        assert (await rig.engine.image("nginx:1")).id == OLD


async def test_one_that_could_not_take_over_has_failed_and_is_handed_over_again_in_another_attempt(rig: Rig) -> None:
    image = rig.box.docker.images.all[NEW]
    rig.box.docker.images.all[NEW] = replace(image, labels={BASE: image_id("another")})
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await rig.engine.create_container(HANDOVER, helper_body(NEW))
        helper = rig.box.docker.container(HANDOVER)
        helper.state = State.EXITED
        helper.log.append((0.0, "stop dom0\nthe new one did not answer\n", ""))
        assert await runner(rig, machine).run(NEW, IMAGES, after=1) == "the new one did not answer"
        assert rig.handed_over == []
        with pytest.raises(Busy):
            await runner(rig, machine).run(NEW, IMAGES, after=1)
        assert rig.handed_over == [NEW]


async def test_a_machine_with_something_given_up_is_not_well(rig: Rig) -> None:
    """One that has rebooted keeps its lock then."""
    rig.project = desired(slot("db"), broken(slot("web")), rollout=Rollout(timeout=60.0))
    async with rig.running() as machine:
        await rig.outcome(Outcome.FAILED, 1)
        await rig.box.until(lambda: any(one.code == "crash-loop" for one in machine.status().problems))
        await rig.box.until(lambda: machine.status().converged)
        assert not runner(rig, machine).is_well
        rig.project = desired(slot("db"))
        assert await runner(rig, machine).run(NEW, IMAGES, after=1) == ""
        await rig.box.until(lambda: runner(rig, machine).is_well)


async def test_while_a_person_changes_the_machine_it_waits(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project, rig.pause = desired(slot("db")), 30.0
        by_hand = asyncio.create_task(rig.up(force=True))
        await asyncio.sleep(1.0)
        with pytest.raises(Busy):
            await runner(rig, machine).run(NEW, IMAGES, after=1)
        await by_hand
