"""What the agent adds to the boot record: each service once, when it is ready, and when all is well."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from dom0.agent.boot import BootNotes
from dom0.agent.status import Outcome
from dom0.engine.values import State
from dom0.host.boot_record import Mark, parse
from dom0.plan.actual import Actual
from dom0.plan.desired import Condition, Dependency
from dom0.plan.memory import Memory
from dom0.plan.planner import Plan, make_plan
from dom0.testing.builders import actual, container, desired, slot
from dom0.testing.rig import Rig

BEGUN = b"3.10\tinit\t\n9.80\tdom0\tlatest\n"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "boot.record"
    path.write_bytes(BEGUN)
    return path


def content(record: Path) -> bytes:
    return record.read_bytes()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def marks(record: Path) -> tuple[Mark, ...]:
    found, unreadable = parse(content(record))
    assert unreadable == 0
    return found


def added(record: Path) -> list[str]:
    return [mark.stage for mark in marks(record)][2:]


async def live(rig: Rig, record: Path, *, generation: int = 1) -> None:
    loop = asyncio.get_running_loop()
    rig.boot_notes = BootNotes(record, clock=lambda: 10 + loop.time())
    async with rig.running():
        await rig.outcome(Outcome.GOOD, generation)


async def test_services_are_noted_as_they_become_ready_and_then_that_all_is_well(rig: Rig, record: Path) -> None:
    rig.project = desired(slot("db"), slot("web", number=1), slot("web", number=2))
    await live(rig, record)
    assert sorted(added(record)[:2]) == ["service:db", "service:web"]
    assert added(record)[2:] == ["ready"]


async def test_an_agent_that_starts_again_in_the_same_boot_adds_nothing(rig: Rig, record: Path) -> None:
    await live(rig, record)
    before = content(record)
    rig.project = desired(slot("web"), slot("late"))
    await live(rig, record)
    assert content(record) == before


async def test_an_agent_that_was_killed_half_way_leaves_the_rest_to_the_next(rig: Rig, record: Path) -> None:
    with record.open("ab") as file:
        file.write(b"11.00\tservice:web\t\n12.00\tservice:d")
    rig.project = desired(slot("web"), slot("db"))
    await live(rig, record)
    found, unreadable = parse(content(record))
    assert [mark.stage for mark in found if mark.stage == "service:web"] == ["service:web"]
    assert {"service:db", "ready"} <= {mark.stage for mark in found}
    assert unreadable == 1


async def test_where_no_host_keeps_a_record_nothing_is_written(rig: Rig, tmp_path: Path) -> None:
    await live(rig, tmp_path / "boot.record")
    assert "boot.record" not in names(tmp_path)


@pytest.mark.parametrize("kind", ["a directory", "a pipe", "a link", "no text"])
async def test_a_record_that_is_none_disturbs_nobody(rig: Rig, tmp_path: Path, kind: str) -> None:
    record, elsewhere = tmp_path / "boot.record", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    match kind:
        case "a directory":
            record.mkdir()
        case "a pipe":
            os.mkfifo(record)
        case "a link":
            record.symlink_to(elsewhere)
        case _:
            record.write_bytes(b"\xff\x00" * 100)
    await live(rig, record)
    assert content(elsewhere) == b""


def plan(now: Actual, memory: Memory) -> Plan:
    return make_plan(desired(JOB, WEB), now, memory, 200.0)


JOB = slot("job", restart_policy="no")
WEB = slot("web", depends_on=(Dependency(service="job", condition=Condition.COMPLETED),))
ENDED = container(JOB, state=State.EXITED)


def test_a_job_counts_in_the_boot_in_which_it_ran(record: Path) -> None:
    notes = BootNotes(record, clock=lambda: 15.0)
    notes.note(plan(actual(), Memory()))
    assert added(record) == []
    notes.note(plan(actual(ENDED), Memory()))
    assert added(record) == ["service:job"]


def test_a_job_that_had_run_before_this_boot_is_not_in_it(record: Path) -> None:
    notes = BootNotes(record, clock=lambda: 15.0)
    notes.note(plan(actual(ENDED), Memory()))
    notes.note(plan(actual(ENDED, container(WEB)), Memory()))
    assert added(record) == ["service:web", "ready"]
