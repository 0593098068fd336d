"""What is written down of a machine, and how often, while it lives through good and bad days. In virtual time."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from dom0.agent import journal
from dom0.agent.events import BURST, ENGINE, LONGEST_WINDOW, MOST_KEYS, WINDOW, Bursts, Entry, Kind, clip
from dom0.agent.state_files import Trial
from dom0.agent.status import Outcome, UpRequest
from dom0.errors import ProjectError
from dom0.plan.steps import AnyStep, CreateNetwork
from dom0.plan.text import kind_of
from dom0.testing.builders import desired, slot
from dom0.testing.rig import NEW, Rig, broken


def entries(rig: Rig) -> list[Entry]:
    return list(journal.read(rig.path / "state" / "events", 0))


def told(rig: Rig, *kinds: str) -> list[tuple[str, str, str]]:
    return [(one.kind, one.subject, one.reason) for one in entries(rig) if one.kind in kinds]


def at(time: float, subject: str = "web", kind: str = Kind.CONTAINER_EXITED) -> Entry:
    return Entry(time=time, kind=kind, subject=subject, text=f"{subject} exited")


async def test_a_first_start_is_told_step_by_step_with_its_reasons(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    assert [(one.text, one.reason, one.generation) for one in entries(rig)][2:] == [
        ("generation 1: begun", "first start", 1),
        ("create network box_default", "it does not exist", 1),
        ("create box-web-1", "it does not exist", 1),
        ("start box-web-1", "created", 1),
        ("generation 1: good", "", 1),
        ("the agent has ended", "", 1),
    ]


async def test_what_a_command_has_created_before_is_told_too(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        async for _ in machine.up(UpRequest(networks=("box_other",))):
            pass
    assert told(rig, kind_of(CreateNetwork))[1:] == [("create-network", "box_other", "it does not exist")]


async def test_a_generation_that_fails_is_told_with_why_and_where_the_machine_goes(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(broken(slot("web", hash="h2")))
        await rig.up()
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        why = "web keeps exiting and is not restarted any more (last exit code 1)"
        kinds = (Kind.GENERATION_BEGUN, Kind.GENERATION_FAILED, Kind.GENERATION_BACK)
        assert told(rig, *kinds)[1:] == [
            (Kind.GENERATION_BEGUN, "generation 2", "dom0 up"),
            (Kind.GENERATION_FAILED, "generation 2", why),
            (Kind.GENERATION_BACK, "generation 1", f"generation 2 failed: {why}"),
        ]


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_trial_is_told_from_its_begin_to_its_end(rig: Rig, confirm: bool) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        machine.try_next(Trial(dom0_image=NEW, seconds=60.0))
        assert (await rig.up(image=NEW)).outcome is Outcome.TRIAL
        if confirm:
            await machine.confirm()
        await rig.box.until(lambda: bool(told(rig, Kind.GENERATION_CONFIRMED, Kind.GENERATION_BACK)))
    kinds = [one.kind for one in entries(rig) if one.subject == "generation 2"]
    last = Kind.GENERATION_CONFIRMED if confirm else Kind.GENERATION_EXPIRED
    assert kinds == [Kind.GENERATION_BEGUN, Kind.GENERATION_TRIAL, last]


async def test_what_a_person_does_to_a_container_is_told_once_and_as_nobodys_we_know(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.person.kill_container("box-web-1")
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        await rig.box.person.stop_container("box-web-1")
        await rig.box.until(lambda: "held" in {problem.code for problem in machine.status().problems})
    assert [(one.kind, one.reason) for one in entries(rig) if one.actor == ENGINE][1:] == [
        (Kind.CONTAINER_EXITED, ""),
        (Kind.CONTAINER_STOPPED, ""),
    ]


async def test_what_the_agent_stops_itself_is_no_exit(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        await rig.up(force=True)
        await asyncio.sleep(1)
    assert told(rig, Kind.CONTAINER_EXITED, Kind.CONTAINER_STOPPED) == []


async def test_a_refused_up_is_told_with_its_reason(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        rig.refusal = ProjectError("compose.yaml:3: services.web.imgae: unknown key")
        await rig.up()
    assert told(rig, Kind.REFUSED) == [(Kind.REFUSED, "dom0", "compose.yaml:3: services.web.imgae: unknown key")]


async def test_an_engine_that_goes_and_comes_back_is_told_once_each(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.box.docker.stop_engine()
        await asyncio.sleep(300)
        rig.box.docker.start_engine()
        await rig.box.until(lambda: machine.status().converged)
    assert [kind for kind, _, _ in told(rig, Kind.ENGINE_TROUBLE, Kind.ENGINE_BACK)] == [
        Kind.ENGINE_TROUBLE,
        Kind.ENGINE_BACK,
    ]


async def test_a_restart_is_no_boot_and_numbers_go_on(rig: Rig) -> None:
    for rig.boot in ("00000000", "00000000", "11111111"):
        async with rig.running() as machine:
            await rig.box.until(lambda: machine.status().converged)
    numbers = [one.seq for one in entries(rig)]
    assert numbers == sorted(set(numbers))
    assert [one.kind for one in entries(rig) if one.kind in (Kind.MACHINE_BOOTED, Kind.AGENT_STARTED)] == [
        Kind.MACHINE_BOOTED,
        Kind.AGENT_STARTED,
        Kind.AGENT_STARTED,
        Kind.MACHINE_BOOTED,
        Kind.AGENT_STARTED,
    ]


async def test_a_service_that_crashes_for_hours_leaves_few_entries(rig: Rig) -> None:
    """Whatever starts it again each time: here somebody who does not give up."""
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        for _ in range(800):
            await rig.box.person.kill_container("box-web-1")
            await asyncio.sleep(4)
            if not rig.hashes():
                await rig.box.person.start_container("box-web-1")
            await asyncio.sleep(4)
    of_it = [one for one in entries(rig) if one.kind == Kind.CONTAINER_EXITED]
    assert sum(one.count for one in of_it) == 800
    assert len(entries(rig)) < 150


async def test_a_disk_that_cannot_be_written_is_a_problem_and_stops_nothing(rig: Rig) -> None:
    (rig.path / "state").mkdir()
    (rig.path / "state" / "events").write_text("in the way")
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        assert [problem.code for problem in machine.status().problems] == ["state-unwritable"]
        (rig.path / "state" / "events").unlink()
        await rig.box.until(lambda: machine.status().problems == ())
        assert entries(rig)[0].kind == Kind.MACHINE_BOOTED


def test_bursts_are_written_one_by_one_first_and_counted_then() -> None:
    bursts = Bursts()
    written = [one for second in range(30) for one in bursts.take(at(float(second)))]
    assert written == [at(float(second)) for second in range(BURST)]
    assert bursts.due(WINDOW - 1) == []
    assert [(one.count, one.since, one.time) for one in bursts.due(WINDOW)] == [(30 - BURST, float(BURST), 29.0)]
    assert bursts.due(WINDOW) == []


def test_a_burst_that_goes_on_is_written_less_and_less_and_forgotten_when_it_is_over() -> None:
    bursts, written = Bursts(), []
    for second in range(36_000):
        written += bursts.take(at(float(second)))
    assert len(written) < BURST + 36_000 / LONGEST_WINDOW + 10
    written += bursts.end()
    assert sum(one.count for one in written) == 36_000
    assert bursts.take(at(36_001.0)) == [at(36_001.0)]


def test_entries_of_others_are_not_held_up_by_a_burst() -> None:
    bursts = Bursts()
    for second in range(20):
        bursts.take(at(second / 10))
    for other in (at(3.0, "db"), at(3.0, kind=Kind.CONTAINER_OOM)):
        assert bursts.take(other) == [other]


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_loses_nothing(jump: float) -> None:
    bursts, written = Bursts(), []
    for second in range(100):
        written += bursts.take(at(1e6 + second))
        written += bursts.take(at(1e6 + second + jump))
    assert sum(one.count for one in [*written, *bursts.end()]) == 200


def test_thousands_of_names_are_not_remembered() -> None:
    bursts, written = Bursts(), []
    for number in range(10 * MOST_KEYS):
        written += bursts.take(at(number / 1000, f"web-{number}"))
    assert len(written) == 10 * MOST_KEYS
    assert len(bursts._bursts) <= MOST_KEYS


@pytest.mark.parametrize("text", ["a" * 5000, "\ud800", "\0\x1b]0;evil\x07\n\r\u202e"])
def test_a_text_is_cut_and_can_always_be_written(text: str) -> None:
    assert len(clip(text)) <= 1000
    clip(text).encode()


def test_kinds_of_steps_are_no_other_kinds() -> None:
    steps = {kind_of(step) for step in get_args(AnyStep)}
    assert "start-container" in steps
    assert not steps & set(Kind)
