"""Jobs that run by a schedule, in virtual time: when they run, and what is done about those that were missed."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from msgspec.structs import replace

from dom0.engine.values import State
from dom0.plan.desired import Slot
from dom0.plan.phase import Phase
from dom0.testing.box import Box
from dom0.testing.builders import asking, desired, slot
from dom0.testing.virtual_time import set_clock

RUNNING, EXITED, CREATED = State.RUNNING, State.EXITED, State.CREATED
MINUTE = 60.0
EVERY = 5 * MINUTE


def job(*argv: str, version: str = "1") -> Slot:
    return replace(asking(slot("job", hash=version), cmd=argv), schedule="every 5m")


def started(box: Box) -> float:
    return next((c.started for c in box.docker.containers.values() if c.name == "box-job-1"), 0.0)


async def run_until(box: Box, state: State) -> None:
    await box.until(lambda: box.names() == {"box-job-1": state})


async def test_a_job_is_made_at_once_and_runs_when_it_is_due_again_and_again() -> None:
    box = Box(desired(job("sleep", "10")))
    async with box.running() as loop:
        await box.at_rest()
        assert box.names() == {"box-job-1": CREATED}
        assert loop.plan is not None
        assert loop.plan.well
        times = []
        for _ in range(20):  # more often than a service may end
            await run_until(box, RUNNING)
            times.append(started(box))
            await run_until(box, EXITED)
    assert [later - before for before, later in itertools.pairwise(times)] == pytest.approx([EVERY] * 19, abs=1)
    assert loop.plan is not None
    assert (loop.plan.slots[0].phase, loop.plan.problems) == (Phase.SCHEDULED, ())
    assert loop.plan.next_run == pytest.approx(times[-1] + EVERY)


async def test_it_runs_once_at_a_time() -> None:
    box = Box(desired(job("sleep", str(12 * MINUTE))))
    async with box.running():
        await run_until(box, RUNNING)
        first = started(box)
        await run_until(box, EXITED)
        await run_until(box, RUNNING)
    assert started(box) - first == pytest.approx(3 * EVERY, abs=1)


async def test_one_that_fails_is_a_problem_until_one_succeeds_and_is_not_tried_before_its_time() -> None:
    box = Box(desired(job("false")))
    async with box.running() as loop:
        await run_until(box, EXITED)
        first = started(box)
        await box.at_rest()
        assert loop.plan is not None
        assert [problem.code for problem in loop.plan.problems] == ["job-failed"]
        assert loop.plan.well
        await box.until(lambda: started(box) > first)
        assert started(box) - first == pytest.approx(EVERY, abs=1)


async def test_what_was_missed_while_the_machine_was_off_runs_once() -> None:
    box = Box(desired(job("true")))
    async with box.running():
        await run_until(box, EXITED)
    await asyncio.sleep(10 * EVERY)
    before = started(box)
    async with box.running() as loop:
        await box.until(lambda: started(box) > before)
        again = started(box)
        await box.at_rest()
        assert started(box) == again
        assert loop.plan is not None
        assert loop.plan.next_run == pytest.approx(again + EVERY)


@pytest.mark.parametrize("crash", [True, False])
async def test_a_run_that_the_engine_cut_off_is_begun_again(crash: bool) -> None:
    box = Box(desired(job("sleep", "100")))
    async with box.running():
        await run_until(box, RUNNING)
        first = started(box)
        box.docker.restart_engine(crash=crash)
        await box.until(lambda: started(box) > first and box.names() == {"box-job-1": RUNNING})
        assert started(box) - first < EVERY


async def test_a_change_waits_for_the_run_to_end() -> None:
    box = Box(desired(job("sleep", "100")))
    async with box.running():
        await run_until(box, RUNNING)
        first = started(box)
        box.aim(desired(job("sleep", "100", version="2")))
        await box.at_rest()
        assert box.names() == {"box-job-1": RUNNING}
        assert started(box) == first
        await run_until(box, CREATED)


async def test_a_run_that_a_person_stops_stays_stopped() -> None:
    box = Box(desired(job("sleep", "100")))
    async with box.running() as loop:
        await run_until(box, RUNNING)
        await box.person.stop_container("box-job-1")
        await asyncio.sleep(3 * EVERY)
        assert box.names() == {"box-job-1": EXITED}
        assert loop.plan is not None
        assert [problem.code for problem in loop.plan.problems] == ["held"]


async def test_its_container_is_made_again_when_somebody_has_removed_it() -> None:
    box = Box(desired(job("true")))
    async with box.running():
        await run_until(box, EXITED)
        await box.person.remove_container("box-job-1")
        await run_until(box, CREATED)
        await run_until(box, EXITED)


async def test_a_boot_with_a_clock_far_behind_runs_nothing() -> None:
    box = Box(desired(job("true")))
    async with box.running():
        await run_until(box, EXITED)
    before = started(box)
    set_clock(-10 * EVERY)
    async with box.running() as loop:
        await asyncio.sleep(2 * EVERY)
        assert started(box) == before
        assert loop.plan is not None
        assert loop.plan.well
        set_clock(10 * EVERY)
        await box.until(lambda: started(box) > before)


async def test_a_run_in_a_future_that_was_wrong_hinders_none() -> None:
    box = Box(desired(job("true")))
    async with box.running():
        await box.at_rest()
        set_clock(1000 * EVERY)
        await run_until(box, EXITED)
        set_clock(-1000 * EVERY)
        future = started(box)
        await box.until(lambda: started(box) < future)
        again = started(box)
        await box.until(lambda: started(box) > again)
        assert started(box) - again == pytest.approx(EVERY, abs=1)
