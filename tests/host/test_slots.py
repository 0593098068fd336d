"""The program `slots` of the base OS, under its own shell and on a mounted medium; and what is made of its answers."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from dom0.errors import Dom0Error
from dom0.host import slots, uki
from dom0.host.uki import BootFile
from dom0.testing import slots_machine
from dom0.testing.fake_uki import make_uki
from dom0.testing.slots_machine import SlotsMachine, base_os

PARTS = ["initrd", "line", "linux", "sums", "version"]
ARMED = {"good": "a", "next": "b", "left": "3", "failed": ""}
FRESH = {"good": "a", "next": "", "left": "", "failed": ""}


@pytest.fixture(scope="module", autouse=True)
def _possible(engines_possible: None) -> None:
    if reason := slots_machine.missing():
        pytest.skip(reason)


@pytest.fixture
def machine() -> Iterator[SlotsMachine]:
    with SlotsMachine() as made:
        yield made


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A version as `slots update` takes it."""
    directory = tmp_path_factory.mktemp("updates")

    def make(version: str) -> Path:
        file = directory / version
        if not file.exists():
            with file.open("wb") as opened:
                slots.pack(base_os(version), opened)
        return file

    return make


def is_base_os(machine: SlotsMachine, slot: str, version: str) -> bool:
    return all(machine.read(slot, file.name) == file.content for file in base_os(version))


def test_an_update_goes_into_the_slot_that_does_not_run_and_is_armed(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    done = machine.slots("update", "-", stdin=packed("2.0"))
    assert (done.code, done.stderr) == (0, "")
    assert machine.environment() == ARMED
    assert is_base_os(machine, "a", "1.0")
    assert is_base_os(machine, "b", "2.0")
    assert machine.holds("b") == PARTS
    assert machine.is_read_only()


def test_the_status_says_what_is_in_the_slots(machine: SlotsMachine, packed: Callable[[str], Path]) -> None:
    before = slots.decode(machine.slots("status").stdout)
    assert (before.version, before.running, before.good, before.next) == ("1.0", "a", "a", "")
    assert [(slot.version, slot.kernel) for slot in before.slots] == [("1.0", "6.12.0-test"), ("", "")]
    assert [before.state(slot) for slot in before.slots] == ["runs, good", "empty"]
    assert before.room > 10_000
    assert before.memory > 100_000
    machine.slots("update", "-", stdin=packed("2.0"))
    after = slots.decode(machine.slots("status").stdout)
    assert [after.state(slot) for slot in after.slots] == ["runs, good", "next, 3 tries"]
    assert after.room == pytest.approx(before.room, abs=64)


def test_a_second_update_before_the_restart_replaces_the_first(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.slots("update", "-", stdin=packed("3.0"))
    assert machine.environment() == ARMED
    assert is_base_os(machine, "b", "3.0")


def test_blessing_the_trial_makes_it_the_good_one(machine: SlotsMachine, packed: Callable[[str], Path]) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.write_environment(left="2")
    machine.tell("b", trial=900)
    trying = slots.decode(machine.slots("status").stdout)
    assert [trying.state(slot) for slot in trying.slots] == ["good", "runs, on trial, 2 more"]
    assert machine.slots("bless").code == 0
    assert machine.environment() == FRESH | {"good": "b"}
    assert machine.is_read_only()


def test_what_does_not_read_as_it_was_written_is_not_blessed(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.write_environment(left="2")
    machine.tell("b", trial=900)
    machine.flip_bit("b", "initrd")
    refused = machine.slots("bless")
    assert refused.code == 1
    assert refused.stderr.startswith("base OS: slot b does not read from the boot medium as it was written\n")
    assert machine.environment() == FRESH | {"failed": "b"}
    assert machine.is_read_only()


def test_a_good_slot_that_is_damaged_is_a_problem_of_the_boot(machine: SlotsMachine) -> None:
    machine.flip_bit("a", "initrd")
    assert machine.slots("bless").code == 1
    assert machine.environment() == FRESH
    assert "\tproblem:slot\tslot a does not read" in machine.inside("/run/dom0/boot.record").read_text()


def test_an_iso_that_is_damaged_is_a_problem_of_the_boot(machine: SlotsMachine) -> None:
    """It has one base OS, and nothing by which another one could be started."""
    machine.tell("")
    assert machine.slots("bless").code == 0
    assert not machine.inside("/run/dom0/boot.record").exists()
    machine.flip_bit("a", "initrd")
    refused = machine.slots("bless")
    assert (refused.code, "write another medium: dom0 os iso" in refused.stderr) == (1, True)
    assert "\tproblem:slot\tthe base OS does not read" in machine.inside("/run/dom0/boot.record").read_text()


def test_what_was_started_without_a_medium_has_nothing_to_read(machine: SlotsMachine) -> None:
    machine.tell("")
    with machine.start("/medium", program="../../bin/umount") as child:
        assert child.wait() == 0
    done = machine.slots("bless")
    assert (done.code, done.stderr) == (0, "")


def test_blessing_the_good_slot_leaves_an_update_armed(machine: SlotsMachine, packed: Callable[[str], Path]) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    assert machine.slots("bless").code == 0
    assert machine.environment() == ARMED


def test_while_a_slot_is_on_trial_nothing_is_written_over_the_good_one(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.tell("b", trial=900)
    refused = machine.slots("update", "-", stdin=packed("3.0"))
    assert refused.code == 1
    assert "slot b has not proved itself yet" in refused.stderr
    assert is_base_os(machine, "a", "1.0")


def test_rollback_calls_an_armed_update_off(machine: SlotsMachine, packed: Callable[[str], Path]) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    assert machine.slots("rollback").stdout == "the update in slot b will not be started\n"
    assert machine.environment() == FRESH


def test_rollback_of_a_trial_cannot_be_undone_by_a_blessing_that_comes_late(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.tell("b", trial=900)
    assert machine.slots("rollback").stdout == "the next start is of slot a\n"
    assert machine.slots("bless").code == 0
    assert machine.environment() == FRESH | {"failed": "b"}


def test_one_that_was_given_up_and_runs_as_the_only_one_left_can_be_blessed(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.write_environment(next="", left="", failed="b")
    machine.tell("b")  # GRUB could not start the good one
    assert machine.slots("bless").code == 0
    assert machine.environment() == FRESH | {"good": "b"}


def test_rollback_of_a_blessed_update_tries_the_old_one(machine: SlotsMachine, packed: Callable[[str], Path]) -> None:
    machine.slots("update", "-", stdin=packed("2.0"))
    machine.tell("b", trial=900)
    machine.slots("bless")
    assert machine.slots("rollback").stdout == "the next start is of slot a\n"
    assert machine.environment() == {"good": "b", "next": "a", "left": "3", "failed": ""}


@pytest.mark.parametrize("failed", ["", "b"])
def test_without_another_good_slot_there_is_nothing_to_go_back_to(failed: str, machine: SlotsMachine) -> None:
    machine.write_environment(failed=failed)
    refused = machine.slots("rollback")
    assert refused.code == 1
    assert "nothing to go back to" in refused.stderr


def damaged(tmp_path: Path, change: Callable[[list[BootFile]], list[BootFile]]) -> Path:
    file = tmp_path / "damaged"
    with file.open("wb") as opened:
        slots.pack(change(list(base_os("2.0"))), opened)
    return file


def other_content(files: list[BootFile]) -> list[BootFile]:
    return [BootFile("linux", b"another kernel"), *files[1:]]


def without_initrd(files: list[BootFile]) -> list[BootFile]:
    return [file for file in files if file.name != "initrd"]


def sums_of_less(files: list[BootFile]) -> list[BootFile]:
    assert isinstance(files[-1].content, bytes)
    return [*files[:-1], BootFile("sums", b"".join(files[-1].content.splitlines(keepends=True)[:2]))]


@pytest.mark.parametrize("change", [other_content, without_initrd, sums_of_less])
def test_a_damaged_update_is_not_armed_and_leaves_the_slot_empty(
    change: Callable[[list[BootFile]], list[BootFile]], machine: SlotsMachine, tmp_path: Path
) -> None:
    refused = machine.slots("update", "-", stdin=damaged(tmp_path, change))
    assert refused.code == 1
    assert "slot b is empty now" in refused.stderr
    assert machine.environment() == FRESH
    assert machine.holds("b") == []
    assert is_base_os(machine, "a", "1.0")
    assert machine.is_read_only()


def test_an_update_that_is_cut_off_is_not_armed(
    machine: SlotsMachine, packed: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "half").write_bytes(packed("2.0").read_bytes()[:1_000_000])
    assert machine.slots("update", "-", stdin=tmp_path / "half").code == 1
    assert machine.environment() == FRESH


def test_an_update_that_does_not_fit_says_so(machine: SlotsMachine, tmp_path: Path) -> None:
    def larger(files: list[BootFile]) -> list[BootFile]:
        return [files[0], BootFile("initrd", b"x" * (80 << 20)), *files[2:]]

    refused = machine.slots("update", "-", stdin=damaged(tmp_path, larger))
    assert refused.code == 1
    assert "No space left" in refused.stderr
    assert machine.environment() == FRESH


def test_no_signers_are_not_the_same_as_none_that_are_left(machine: SlotsMachine) -> None:
    assert machine.slots("signers").stdout == ""
    signers = machine.inside("/var/lib/dom0/os-signers")
    for content in ("", "me@example.com ssh-ed25519 AAAA\n"):
        signers.write_text(content)
        assert machine.slots("signers").stdout == f"# /var/lib/dom0/os-signers\n{content}"
    signers.unlink()
    signers.symlink_to("gone")
    assert machine.slots("signers").code != 0


def test_a_machine_without_slots_says_what_to_do_instead(machine: SlotsMachine) -> None:
    machine.tell("")
    assert slots.decode(machine.slots("status").stdout).slots == ()
    refused = machine.slots("update", "-")
    assert refused.code == 1
    assert "from the network or an ISO" in refused.stderr


def test_a_damaged_environment_counts_as_slot_a_and_is_made_anew(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.damage("dom0/grubenv")
    assert slots.decode(machine.slots("status").stdout).good == "a"
    machine.slots("update", "-", stdin=packed("2.0"))
    assert machine.environment() == ARMED


def state(machine: SlotsMachine) -> str:
    """Which of the two states that may be after an update; an assertion fails for any other."""
    assert is_base_os(machine, "a", "1.0")
    found = machine.environment()
    assert found in (FRESH, ARMED)
    if found == ARMED:
        assert is_base_os(machine, "b", "2.0")
        return "new"
    return "old"


def a_moment(whole: float) -> None:
    """Lets an update run for a random part of what one takes."""
    time.sleep(random.uniform(0, whole * 1.2))  # noqa: S311 -- nobody guesses it


def duration(machine: SlotsMachine, update: Path) -> float:
    began = time.monotonic()
    assert machine.slots("update", "-", stdin=update).code == 0
    return time.monotonic() - began


def test_killed_at_any_instant_the_next_start_is_of_the_old_or_the_new_one(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    whole = duration(machine, packed("2.0"))
    seen = set()
    for number in range(25):
        machine.slots("rollback")
        child = machine.start("update", "-", stdin=packed("2.0"))
        if number:  # the first one before it has begun
            a_moment(whole)
        machine.kill(child)
        seen.add(state(machine))
    assert machine.slots("update", "-", stdin=packed("2.0")).code == 0  # whatever was left, it goes on
    assert state(machine) == "new"
    assert machine.is_read_only()
    assert "old" in seen


def test_a_lock_whose_holder_was_killed_is_free_also_when_another_program_has_its_number(
    machine: SlotsMachine, packed: Callable[[str], Path]
) -> None:
    machine.inside("/run/dom0/os/slots.lock").symlink_to("1")
    assert machine.slots("update", "-", stdin=packed("2.0")).code == 0
    assert state(machine) == "new"


def test_power_cut_at_any_instant_the_next_start_is_of_the_old_or_the_new_one(
    packed: Callable[[str], Path], tmp_path: Path
) -> None:
    with SlotsMachine() as first:
        whole = duration(first, packed("2.0"))
    for _ in range(15):
        with SlotsMachine() as machine:
            child = machine.start("update", "-", stdin=packed("2.0"))
            a_moment(whole)
            machine.cut_power(child, tmp_path / "medium")
        with SlotsMachine(snapshot=tmp_path / "medium") as again:
            state(again)
            assert again.slots("update", "-", stdin=packed("2.0")).code == 0
            assert state(again) == "new"


# what Python makes of it


def an_os(tmp_path: Path) -> uki.Uki:
    file = tmp_path / "os.efi"
    file.write_bytes(make_uki())
    return uki.read(file)


NOW = slots.OsStatus(
    version="1.0",
    machine="x86_64",
    slots=(slots.OsSlot(name="a", version="1.0", kernel="6"), slots.OsSlot(name="b", version="", kernel="")),
    running="a",
    good="a",
    room=200_000,
    memory=500_000,
)


def test_an_update_that_fits_is_not_refused(tmp_path: Path) -> None:
    os = an_os(tmp_path)
    slots.refuse(NOW, os, uki.slot_files(os))


@pytest.mark.parametrize(
    ("now", "what"),
    [
        ({"slots": ()}, "not started from a boot disk with slots"),
        ({"machine": "aarch64"}, "is for amd64, this machine is aarch64"),
        ({"running": "b"}, "slot b has not proved itself yet"),
        ({"room": 100}, "the boot medium has room for 0 MiB"),
        ({"memory": 100_000}, "of memory, this machine has 97 MiB"),
    ],
)
def test_what_cannot_be_the_next_base_os_is_refused_before_anything_changes(
    now: dict[str, object], what: str, tmp_path: Path
) -> None:
    os = an_os(tmp_path)
    with pytest.raises(Dom0Error, match=what):
        slots.refuse(
            slots.OsStatus(**{f: getattr(NOW, f) for f in NOW.__struct_fields__} | now), os, uki.slot_files(os)
        )


@pytest.mark.parametrize(("runs", "is_refused"), [("6.12.1-amd64", True), ("6.12.0-cloud-amd64", False)])
def test_one_for_virtual_machines_is_no_update_of_hardware(runs: str, is_refused: bool, tmp_path: Path) -> None:
    """It might come up, be blessed, and have no network."""
    file = tmp_path / "os.efi"
    file.write_bytes(make_uki(uname=b"6.12.1-cloud-amd64\0"))
    os = uki.read(file)
    now = msgspec.structs.replace(NOW, slots=(slots.OsSlot(name="a", version="1.0", kernel=runs),))
    with pytest.raises(Dom0Error, match="is for virtual machines") if is_refused else nullcontext():
        slots.refuse(now, os, uki.slot_files(os))


def test_an_answer_that_is_none_is_an_error() -> None:
    with pytest.raises(Dom0Error, match="not understood"):
        slots.decode("running=a\nversion=1\nmachine=x\nleft=many\n")


def test_the_files_of_a_slot_are_what_the_update_takes(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as packed, SlotsMachine() as machine:
        slots.pack(uki.slot_files(an_os(tmp_path)), packed)
        (tmp_path / "update").write_bytes(b"")
        packed.seek(0)
        (tmp_path / "update").write_bytes(packed.read())
        assert machine.slots("update", "-", stdin=tmp_path / "update").code == 0
        assert machine.environment() == ARMED
