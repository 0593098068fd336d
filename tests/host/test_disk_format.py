"""`disk format` of the base OS: a blank disk becomes a data disk, whatever interrupts it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dom0.testing.block_writes import Sectors, after_kills, after_power_cuts, lay, moments, tracing
from dom0.testing.disk_machine import Disk, DiskMachine

SIZE = 64 * 1024 * 1024


def is_sound(disk: Disk) -> bool:
    return subprocess.run(["e2fsck", "-fn", str(disk.file)], capture_output=True, check=False).returncode == 0


def is_ours_to_make(found: dict[str, Any]) -> bool:
    """What consent to formatting holds for."""
    return bool(found.get("blank") or found.get("half_made"))


def test_a_blank_disk_becomes_a_data_disk(machine: DiskMachine) -> None:
    disk = machine.blank("sda")
    assert machine.disk("format", "/dev/sda", "--yes").stdout.startswith("/dev/sda: is a data disk now")
    machine.flush()
    found = machine.survey()["/dev/sda"]
    assert (found["type"], found["label"]) == ("ext4", "dom0-data")
    assert not is_ours_to_make(found)
    assert is_sound(disk)
    assert machine.disk("choose").stdout == "own /dev/sda: its label is dom0-data\n"


def test_no_other_disk_than_the_named_one_is_formatted(machine: DiskMachine) -> None:
    disks = [machine.blank(name) for name in ("sda", "sdb", "sdc")]
    before = disks[0].digest()
    machine.disk("format", "/dev/sdb", "--yes")
    machine.flush()
    assert [disk.digest() == before for disk in disks] == [True, False, True]


def test_who_formats_types_the_name_of_the_disk(machine: DiskMachine) -> None:
    disk = machine.blank("sda")
    before = disk.digest()
    for typed in ("", "yes\n", "/dev/sdb\n"):
        refused = machine.disk("format", "/dev/sda", stdin=typed, check=False)
        assert (refused.code, "left as it is" in refused.stderr) == (1, True)
    machine.flush()
    assert disk.digest() == before
    assert machine.disk("format", "/dev/sda", stdin="/dev/sda\n").code == 0


def test_a_disk_with_anything_on_it_is_refused_and_untouched(machine: DiskMachine) -> None:
    data = machine.blank("sda")
    machine.disk("format", "/dev/sda", "--yes")
    machine.flush()
    one_byte = machine.blank("sdb")
    with one_byte.file.open("r+b") as opened:
        opened.write(b"x")
    for disk in (data, one_byte):
        before = disk.digest()
        refused = machine.disk("format", f"/dev/{disk.name}", "--yes", check=False)
        assert (refused.code, "is not blank" in refused.stderr) == (1, True)
        machine.flush()
        assert disk.digest() == before
    assert machine.disk("format", "/dev/sdc", "--yes", check=False).stderr.startswith("/dev/sdc: there is no such disk")


@pytest.fixture(scope="module")
def formatting(disks_possible: None) -> list[list[Sectors]]:
    """What a disk holds after each write of its formatting, from flush to flush."""
    with DiskMachine() as machine:
        machine.install("strace")
        disk = machine.blank("sda")
        machine.run(*tracing("/dev/sda", "/run/trace"), "/usr/lib/dom0/disk", "format", "/dev/sda", "--yes")
        machine.flush()
        found = moments(machine.inside("/run/trace").read_text())
        assert lay(found[-1][-1], machine.root / "traced", SIZE).read_bytes() == disk.file.read_bytes()
        return found


def test_a_killed_formatting_leaves_what_is_recognised_and_can_be_made_again(
    machine: DiskMachine, formatting: list[list[Sectors]], tmp_path: Path
) -> None:
    """Killed after each of its writes. Never is a half-made file system taken for a data disk."""
    seen = {check(machine, state, tmp_path) for state in after_kills(formatting)}
    assert seen == {"blank", "half made", "done"}


def test_what_reached_the_disk_before_a_power_cut_is_recognised_too(
    machine: DiskMachine, formatting: list[list[Sectors]], tmp_path: Path
) -> None:
    """In any order that the disk writes, sector by sector."""
    seen = {check(machine, state, tmp_path) for state in after_power_cuts(formatting, seed=4)}
    assert seen == {"blank", "half made", "done"}


def check(machine: DiskMachine, state: Sectors, directory: Path) -> str:
    """What it takes the disk for; one that is no data disk yet becomes one."""
    disk = machine.plug("sda", lay(state, directory / "disk", SIZE))
    try:
        found = machine.survey()["/dev/sda"]
        if found.get("label") == "dom0-data":
            assert is_sound(disk)
            return "done"
        assert is_ours_to_make(found), found
        assert machine.disk("choose").stdout.startswith("memory: ")
        machine.disk("format", "/dev/sda", "--yes")
        machine.flush()
        assert machine.survey()["/dev/sda"]["label"] == "dom0-data"
        assert is_sound(disk)
        return "blank" if found.get("blank") else "half made"
    finally:
        machine.unplug("sda")


def test_a_half_written_superblock_of_somebodys_own_file_system_is_not_ours(machine: DiskMachine) -> None:
    disk = begun(machine)
    with disk.file.open("r+b") as opened:
        opened.seek(1024 + 104)
        opened.write(bytes(16))  # another UUID than the mark's
    assert not is_ours_to_make(machine.survey()["/dev/sda"])


def begun(machine: DiskMachine) -> Disk:
    """All of a formatting but its label."""
    disk = machine.blank("sda")
    identity = "11111111-2222-3333-4444-555555555555"
    with disk.file.open("r+b") as opened:
        opened.seek(63 * 1024 * 1024)
        opened.write(f"dom0-data-being-made {identity}\n".encode())
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-U", identity, str(disk.file), "63M"], check=True)
    return disk


def test_a_mark_of_ours_does_not_give_away_what_came_after_it(machine: DiskMachine, tmp_path: Path) -> None:
    """Somebody used the disk after a formatting was cut off; the mark in its last MiB is still there."""
    disk = machine.blank("sda")
    mark = b"dom0-data-being-made 11111111-2222-3333-4444-555555555555\n"
    with disk.file.open("r+b") as opened:
        opened.seek(63 * 1024 * 1024)
        opened.write(mark)
    assert machine.survey()["/dev/sda"]["half_made"]
    shutil.copyfile(disk.file, tmp_path / "raw")
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(disk.file), "60M"], check=True)
    machine.flush()
    assert not is_ours_to_make(machine.survey()["/dev/sda"])
    raw = machine.plug("sdb", tmp_path / "raw")
    with raw.file.open("r+b") as opened:
        opened.write(b"a database of somebody's own")
    assert not is_ours_to_make(machine.survey()["/dev/sdb"])


def test_a_file_system_of_ours_that_was_ever_used_is_not_half_made(machine: DiskMachine) -> None:
    begun(machine)
    assert machine.survey()["/dev/sda"]["half_made"]
    machine.run("/usr/bin/mount", "-t", "ext4", "/dev/sda", "/mnt")
    machine.run("/usr/bin/umount", "/mnt")
    assert not is_ours_to_make(machine.survey()["/dev/sda"])
