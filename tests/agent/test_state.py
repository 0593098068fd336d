"""The state directory after kills, broken disks and full ones: the machine runs on with what there is, and says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dom0.agent.generations import Generation
from dom0.agent.machine import Machine
from dom0.agent.status import Outcome, UpRequest
from dom0.agent.store import Unreadable, exclusive_lock
from dom0.errors import Busy
from dom0.plan.desired import Rollout
from dom0.plan.memory import Memory, SlotVersion
from dom0.testing.builders import as_sent, desired, slot
from dom0.testing.rig import Rig, broken

EARLIER = Path(__file__).parent / "earlier_generation.json"
ZEROS = (("MaximumRetryCount", 0), ("HostIp", ""), ("HostPort", ""))  # earlier versions wrote what says nothing


def codes(machine: Machine) -> list[str]:
    return [problem.code for problem in machine.status().problems]


def generation_file(rig: Rig, number: int) -> Path:
    return rig.path / "state" / "generations" / str(number) / "generation.json"


def read_generation(rig: Rig, number: int) -> Generation:
    return msgspec.json.decode(generation_file(rig, number).read_bytes(), type=Generation)


def read_memory(rig: Rig) -> Memory:
    return msgspec.json.decode((rig.path / "state" / "memory.json").read_bytes(), type=Memory)


def block(path: Path) -> Callable[[], None]:
    """Nothing can be written at `path` until the returned function is called: there is a directory."""
    path.unlink(missing_ok=True)
    path.mkdir()
    return path.rmdir


async def two_good_generations(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        await rig.up()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"held": 7}', b'{"refused": {"slot:web-1": {"of": 1}}}'])
async def test_a_damaged_memory_is_set_aside(rig: Rig, content: bytes) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    (rig.path / "state" / "memory.json").write_bytes(content)
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert codes(machine) == ["state-damaged"]
        await rig.up()
        assert codes(machine) == []
    assert (rig.path / "state" / "memory.json.damaged").read_bytes() == content
    assert rig.hashes() == {"h1"}


async def test_a_damaged_seal_is_kept_beside_the_new_one(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    seal = rig.path / "state" / "ownership.json"
    torn = seal.read_bytes()[:20]
    seal.write_bytes(torn)
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        await rig.box.until(lambda: seal.read_bytes() != torn)
    assert seal.with_name("ownership.json.damaged").read_bytes() == torn


async def test_a_memory_of_a_newer_agent_is_read_as_far_as_it_is_understood(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.person.stop_container("box-web-1")
        await rig.box.until(lambda: "held" in codes(machine))
    memory = msgspec.json.decode((rig.path / "state" / "memory.json").read_bytes())
    (rig.path / "state" / "memory.json").write_bytes(msgspec.json.encode(memory | {"dreams": ["electric sheep"]}))
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert codes(machine) == ["held"]


@pytest.mark.parametrize("content", [b"9", b"", b"\0\0\0", b'"two"', b"-1"])
async def test_a_current_generation_that_is_not_there_is_replaced_by_the_newest_good_one(
    rig: Rig, content: bytes
) -> None:
    await two_good_generations(rig)
    (rig.path / "state" / "current").write_bytes(content)
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert codes(machine) == ["state-damaged"]
        assert [(g.number, g.current) for g in machine.history()] == [(2, True), (1, False)]


async def test_a_damaged_generation_is_none_to_continue_nor_to_go_back_to(rig: Rig) -> None:
    await two_good_generations(rig)
    generation_file(rig, 2).write_bytes(generation_file(rig, 2).read_bytes()[:100])
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert [(g.number, g.current) for g in machine.history()] == [(1, True)]
        last = await rig.up()
        assert (last.outcome, last.generation) == (Outcome.GOOD, 3)


async def test_a_half_copied_generation_is_no_generation_and_is_swept_by_the_next(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    half = rig.path / "state" / "generations" / "2" / "project"
    half.mkdir(parents=True)
    (half / "web.conf").write_text("ha")
    rig.project = desired(slot("web", hash="h2"))
    async with rig.running() as machine:
        assert [g.number for g in machine.history()] == [1]
        last = await rig.up()
        assert (last.outcome, last.generation) == (Outcome.GOOD, 2)
    assert (half / "web.conf").read_text() == "one"


async def test_a_memory_that_cannot_be_written_stops_nothing(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        unblock = block(rig.path / "state" / "memory.json")
        await rig.box.person.kill_container("box-web-1")
        await rig.box.until(lambda: codes(machine) == ["state-unwritable"])
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        unblock()
        await rig.box.until(lambda: codes(machine) == [])


async def test_what_could_not_be_remembered_is_no_problem_once_it_needs_not_be(rig: Rig) -> None:
    """Nothing happens any more that would be written: the problem goes all the same, and who watches is told."""
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        unblock = block(rig.path / "state" / "memory.json")
        await rig.box.person.kill_container("box-web-1")
        await rig.box.until(lambda: codes(machine) == ["state-unwritable"])
        await rig.box.until(lambda: machine.status().converged)
        unblock()
        async with asyncio.timeout(30):
            await machine.changed.until(lambda: codes(machine) == [])


async def test_files_that_could_not_be_placed_at_the_start_are_placed_once_they_can(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    placed = rig.path / "state" / "project"
    placed.rename(rig.path / "aside")
    placed.write_text("a file")
    async with rig.running() as machine:
        await rig.box.until(lambda: codes(machine) == ["state-unwritable"] and machine.status().converged)
        placed.unlink()
        await rig.box.until(lambda: codes(machine) == [])
        assert rig.placed() == "one"


async def test_a_judgement_that_cannot_be_written_is_made_again(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"), rollout=Rollout(monitor=20.0))
        lines = machine.up(UpRequest())
        await anext(lines)
        unblock = block(generation_file(rig, 2))
        await rig.box.until(lambda: codes(machine) == ["state-unwritable"])
        assert rig.hashes() == {"h2"}
        unblock()
        last = [line async for line in lines][-1]
        assert (last.outcome, last.generation) == (Outcome.GOOD, 2)
        await rig.box.until(lambda: codes(machine) == [])


async def test_a_way_back_that_cannot_be_written_is_tried_until_it_can(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(broken(slot("web", hash="h2", restart_policy="always")))
        lines = machine.up(UpRequest())
        await anext(lines)
        unblock = block(rig.path / "state" / "current")
        await rig.box.until(lambda: "state-unwritable" in codes(machine))
        unblock()
        last = [line async for line in lines][-1]
        assert (last.outcome, last.generation) == (Outcome.FAILED, 2)
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert codes(machine) == []


@pytest.mark.parametrize("path", ["generations", "current", "project"])
async def test_a_generation_that_cannot_be_written_is_refused_and_the_one_before_goes_on(rig: Rig, path: str) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        (rig.path / "state" / path).rename(rig.path / "aside")
        (rig.path / "state" / path).write_text("a file") if path != "current" else block(rig.path / "state" / path)
        rig.project = desired(slot("web", hash="h2"))
        last = await rig.up()
        assert (last.outcome, last.problems[0].code) == (Outcome.FAILED, "state-unwritable")
        await rig.box.until(lambda: machine.status().converged)
    assert rig.hashes() == {"h1"}


async def test_killed_after_a_failure_was_written_down_the_next_agent_goes_back(rig: Rig) -> None:
    await two_good_generations(rig)
    failed = replace(read_generation(rig, 2), outcome=Outcome.FAILED, reason="web ended")
    generation_file(rig, 2).write_bytes(msgspec.json.encode(failed))
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert [(g.number, g.current) for g in machine.history()] == [(2, False), (1, True)]


async def test_killed_after_success_was_written_down_the_next_agent_judges_no_more(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    stale = replace(read_memory(rig), pending=True, last_good={"old-1": SlotVersion("h", "i")})
    (rig.path / "state" / "memory.json").write_bytes(msgspec.json.encode(stale))
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
    assert (read_memory(rig).pending, read_memory(rig).last_good) == (False, {})


async def test_killed_before_the_memory_was_written_the_next_agent_still_judges_and_keeps(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        before = read_memory(rig)
        rig.project = desired(slot("web", hash="h2"), rollout=Rollout(monitor=60.0))
        lines = rig.machine.up(UpRequest())
        await anext(lines)
        await asyncio.sleep(20)
    assert read_generation(rig, 2).outcome is Outcome.PENDING
    (rig.path / "state" / "memory.json").write_bytes(msgspec.json.encode(before))
    async with rig.running():
        await asyncio.sleep(5)
        assert read_memory(rig).pending
        assert set(rig.box.names().values()) == {"running", "exited"}
        await rig.outcome(Outcome.GOOD, 2)
        await rig.box.until(lambda: len(rig.box.names()) == 1)


async def test_old_generations_go_and_those_to_go_back_to_stay(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        for number in range(2, 16):
            rig.project = desired(slot("web", hash=f"h{number}"))
            await rig.up()
        numbers = [g.number for g in machine.history()]
    assert numbers[:2] == [15, 14]
    assert 10 <= len(numbers) <= 13


async def test_no_agent_starts_with_a_new_key_while_the_old_one_cannot_be_read(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    seal = rig.path / "state" / "ownership.json"
    seal.unlink()
    seal.symlink_to("/proc/self/mem")  # nothing can be read at its beginning, as of a broken disk
    with pytest.raises(Unreadable, match=r"ownership\.json: cannot be read: Input/output error"):
        async with rig.running() as machine:
            await rig.box.until(lambda: machine.status().converged)
    assert seal.is_symlink()


def test_two_agents_never_work_in_one_state_directory(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "state"):
        with pytest.raises(Busy, match="another dom0 agent"), exclusive_lock(tmp_path / "state"):
            pass
        with exclusive_lock(tmp_path / "other"):
            pass
    with exclusive_lock(tmp_path / "state"):
        pass


def test_a_generation_of_an_earlier_version_asks_the_engine_for_the_same() -> None:
    """It was written before the create bodies had types, of a project that uses every key."""
    written = json.loads(EARLIER.read_text())["desired"]
    found = msgspec.json.decode(EARLIER.read_bytes(), type=Generation).desired
    for before, now in (
        (written["networks"], found.networks),
        (written["volumes"], found.volumes),
        (written["slots"], found.slots),
    ):
        assert [as_sent(one.create) for one in now] == [without_zeros(one.get("create", {})) for one in before]
    endpoints = [attachment["endpoint"] for slot in written["slots"] for attachment in slot.get("attachments", [])]
    assert [as_sent(attachment.endpoint) for slot in found.slots for attachment in slot.attachments] == endpoints


def without_zeros(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_zeros(inner) for key, inner in value.items() if (key, inner) not in ZEROS}
    return [without_zeros(inner) for inner in value] if isinstance(value, list) else value
