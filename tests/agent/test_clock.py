"""The time of day jumps: a machine boots with a wrong clock, then the right time comes from the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dom0.engine.values import State
from dom0.plan.desired import Dependency, Order, Slot
from dom0.plan.memory import Memory
from dom0.plan.phase import Phase
from dom0.testing.box import Box
from dom0.testing.builders import asking, desired, slot
from dom0.testing.fake_engine import Call
from dom0.testing.virtual_time import now, set_clock

RUNNING, EXITED = State.RUNNING, State.EXITED
HOUR = 3600.0


def with_command(of: Slot, *argv: str) -> Slot:
    return asking(of, cmd=argv)


def count(box: Box, name: str) -> Callable[[], int]:
    calls: list[Call] = []
    box.engine.before = calls.append
    return lambda: sum(call.name == name for call in calls)


@pytest.mark.parametrize("jump", [-HOUR, HOUR, -30.0, 30.0])
async def test_a_jump_between_two_crashes_neither_delays_nor_multiplies_the_next_start(jump: float) -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        await box.person.kill_container("box-web-1")
        await box.at_rest()
        set_clock(jump)
        starts = count(box, "start_container")
        await box.person.kill_container("box-web-1")
        async with asyncio.timeout(120):
            await box.until(lambda: box.names() == {"box-web-1": RUNNING})
        await box.at_rest()
        assert starts() == 1


async def test_a_crash_loop_keeps_its_pauses_after_the_clock_went_back() -> None:
    box = Box(desired(slot("web")))
    async with box.running() as loop:
        await box.at_rest()
        set_clock(-HOUR)
        starts = count(box, "start_container")
        box.docker.container("box-web-1").command = ["false"]
        await box.person.kill_container("box-web-1")
        await asyncio.sleep(300)
        assert starts() <= 10
        assert loop.plan is not None
        assert loop.plan.slots[0].phase is Phase.CRASH_LOOP


async def test_a_memory_from_the_future_does_not_make_the_loop_deaf() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
    set_clock(-HOUR)
    async with box.running():
        await box.at_rest()
        await box.person.stop_container("box-web-1")
        await box.at_rest()
    assert box.names() == {"box-web-1": EXITED}


@pytest.mark.parametrize("link", ["namespace", "restart: true"])
async def test_what_follows_another_restarts_once_and_not_until_the_clock_has_caught_up(link: str) -> None:
    db, web = slot("db"), slot("web", depends_on=(Dependency(service="db", restart=True),))
    if link == "namespace":
        web = asking(replace(web, parents=("db",), attachments=()), host={"network_mode": "service:db"})
    box = Box(desired(db, web))
    set_clock(HOUR)
    async with box.running():
        await box.at_rest()
        if link == "namespace":
            await box.person.stop_container("box-db-1")
            await box.person.start_container("box-db-1")
        else:
            box.aim(desired(slot("db", hash="h2", order=Order.STOP_FIRST), web), memory=Memory())
        await box.until(lambda: box.docker.container("box-db-1").state is RUNNING)
        set_clock(-HOUR)
        stops = count(box, "stop_container")
        await asyncio.sleep(600)
        await box.at_rest()
        assert stops() <= 3
    assert box.names() == {"box-db-1": RUNNING, "box-web-1": RUNNING}


async def test_a_refusal_from_the_future_does_not_hold_its_step_back() -> None:
    box = Box(desired(slot("web")))
    box.docker.refuse_start("web", "no space left on device")
    async with box.running():
        await asyncio.sleep(30)
        box.docker.allow_start("web")
        set_clock(-HOUR)
        async with asyncio.timeout(120):
            await box.until(lambda: box.names() == {"box-web-1": RUNNING})


async def test_a_quiet_time_from_the_future_does_not_hold_a_start_back() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
    web = box.docker.container("box-web-1")
    await box.person.kill_container("box-web-1")
    box.memory = replace(box.memory, stop_expected={web.id: now() + HOUR})
    async with box.running(), asyncio.timeout(120):
        await box.until(lambda: box.names() == {"box-web-1": RUNNING})


async def test_the_slow_look_does_not_wait_for_a_clock_that_went_back() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        looks = count(box, "containers")
        set_clock(-HOUR)
        await asyncio.sleep(600)
        assert 9 <= looks() <= 12
