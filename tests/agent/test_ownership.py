"""What carries our labels and is not ours is left alone, whatever becomes of our memory."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from dom0.engine.bodies import ContainerBody
from dom0.engine.values import Image, State
from dom0.plan import labels
from dom0.plan.desired import Role
from dom0.plan.memory import Memory
from dom0.plan.ownership import Seal
from dom0.testing.box import Box
from dom0.testing.builders import desired, image_id, slot

RUNNING = State.RUNNING
COMMITTED = image_id("committed")


def commit(box: Box, name: str) -> None:
    """As `docker commit NAME committed`: the container's labels become the image's."""
    box.docker.images.all[COMMITTED] = Image(
        id=COMMITTED, tags=("committed:latest",), labels=dict(box.docker.container(name).labels)
    )


async def run(box: Box, name: str, own_labels: dict[str, str], **body: Any) -> None:
    """As a person's `docker run`; the Engine adds the image's labels."""
    asked = ContainerBody(image="committed:latest", cmd=("sleep", "1000"), labels=own_labels)
    await box.person.start_container(await box.person.create_container(name, replace(asked, **body)))


async def run_committed(box: Box) -> None:
    """`mydebug` is a person's, from an image of ours, and has been seen."""
    commit(box, "box-web-1")
    await run(box, "mydebug", box.docker.container("box-web-1").labels)
    await box.at_rest()


@pytest.mark.parametrize("role", [Role.SERVICE, Role.SSHD])
async def test_a_container_of_a_committed_image_is_a_persons(role: Role) -> None:
    box = Box(desired(slot("web", role=role)))
    async with box.running():
        await box.at_rest()
        await run_committed(box)
        assert box.names() == {"box-web-1": RUNNING, "mydebug": RUNNING}
    async with box.running():
        await box.at_rest()
        await box.person.remove_container("box-web-1", force=True)
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING, "mydebug": RUNNING}


@pytest.mark.parametrize("forget", ["nothing", "memory", "seal", "both"])
async def test_it_stays_a_persons_when_the_state_is_lost(forget: str) -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        await run_committed(box)
    ours = box.docker.container("box-web-1").id
    if forget in ("memory", "both"):
        box.memory = Memory()
    if forget in ("seal", "both"):
        box.seal = Seal()
    async with box.running():
        await box.at_rest()
        assert box.docker.container("box-web-1").id == ours
        box.aim(desired(slot("web", hash="h2")))
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING, "mydebug": RUNNING}
    assert box.docker.container("box-web-1").id != ours


async def test_it_stays_a_persons_when_ours_is_gone_and_so_is_the_memory_of_it() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        await run_committed(box)
    await box.person.remove_container("box-web-1", force=True)
    box.memory = Memory()
    persons = box.docker.container("mydebug").id
    async with box.running():
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING, "mydebug": RUNNING}
    assert box.docker.container("mydebug").id == persons


async def test_what_copies_all_labels_of_a_container_is_a_persons_even_after_that_is_gone() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        copied = dict(box.docker.container("box-web-1").labels)
        await run(box, "copy", copied, image="app:latest")
        await box.at_rest()
        box.aim(desired(slot("web", hash="h2")))
        await box.at_rest()
    async with box.running():
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING, "copy": RUNNING}


async def test_labels_that_a_person_types_make_nothing_ours() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        typed = {key: value for key, value in box.docker.container("box-web-1").labels.items() if key != labels.CREATE}
        await run(box, "typed", typed, image="app:latest")
        await run(box, "forged", typed | {labels.CREATE: "0" * 64}, image="app:latest")
        box.docker.networks.make("imitated", {labels.PROJECT: "box", labels.HASH: "n1"}, "bridge")
        await box.at_rest()
    async with box.running():
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING, "typed": RUNNING, "forged": RUNNING}
    assert "imitated" in {network.name for network in box.docker.networks.all.values()}


async def test_what_an_older_dom0_made_is_ours() -> None:
    box = Box(desired(slot("web")))
    old = slot("web", hash="h0")
    await box.person.create_container("box-web-1", replace(old.create, image=old.image_id))
    box.docker.networks.make("box_default", {labels.PROJECT: "box", labels.HASH: "n1"}, "bridge")
    box.docker.networks.make("box_left", {labels.PROJECT: "box", labels.HASH: "n1"}, "bridge")
    await box.person.start_container("box-web-1")
    async with box.running():
        await box.at_rest()
    assert box.docker.container("box-web-1").labels[labels.HASH] == "h1"
    assert len(box.names()) == 1
    assert "box_left" not in {network.name for network in box.docker.networks.all.values()}


async def test_ours_is_known_again_with_any_part_of_the_state_lost() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
    for memory, seal in ((Memory(), box.seal), (box.memory, Seal()), (Memory(), Seal())):
        box.memory, box.seal = memory, seal
        before = box.docker.container("box-web-1").id
        box.desired = desired(slot("web", hash=before[:8]))
        async with box.running():
            await box.at_rest()
        assert box.docker.container("box-web-1").id != before
        assert len(box.names()) == 1
