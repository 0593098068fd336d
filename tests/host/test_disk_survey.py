"""`disk survey` of the base OS on real file systems: what it finds, and that it changes no bit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import file_systems
from dom0.testing.disk_machine import Disk, DiskMachine

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n'
STATUS = (
    "Package: bash\nVersion: 5.2\n\nPackage: docker.io\nStatus: install ok installed\nVersion: 1:26.1.5+dfsg1-9\n\n"
)


def plug_in(machine: DiskMachine, name: str, kind: str, **options: Any) -> Disk:
    file = machine.root / f"{name}.disk"
    file_systems.make(file, kind, **options)
    return machine.plug(name, file)


def classic_store(lib: Path) -> None:
    """As Engines leave it: two images, three containers."""
    store = lib / "docker"
    images = store / "image/overlay2/imagedb/content/sha256"
    images.mkdir(parents=True)
    for digest in ("a" * 64, "b" * 64):
        (images / digest).write_text("{}")
    for container in ("1" * 64, "2" * 64, "3" * 64):
        (store / "containers" / container).mkdir(parents=True)
    (store / "overlay2/l").mkdir(parents=True)


def linux(tree: Path) -> Path:
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/os-release").write_text(DEBIAN)
    (tree / "var/lib/dpkg").mkdir(parents=True)
    (tree / "var/lib/dpkg/status").write_text(STATUS)
    classic_store(tree / "var/lib")
    return tree


@pytest.mark.parametrize(
    ("kind", "label"), [("ext4", "some-data"), ("ext2", "old"), ("xfs", "fast"), ("btrfs", "tree"), ("vfat", "EFI")]
)
def test_a_file_system_is_told_and_not_a_bit_of_it_changed(machine: DiskMachine, kind: str, label: str) -> None:
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"not installed: mkfs.{kind}")
    disk = plug_in(machine, "sda", kind, label=label)
    before = disk.digest()
    found = machine.survey()["/dev/sda"]
    machine.flush()
    assert (found["type"], found["label"]) == (kind, label)
    assert "blank" not in found
    assert disk.digest() == before
    assert machine.run("/usr/bin/blockdev", "--getro", "/dev/sda").stdout == "0\n"


def test_a_journal_is_not_replayed(machine: DiskMachine, tmp_path: Path) -> None:
    """A disk that was cut off while it was written. Who mounts it in the ordinary way, also read-only, changes it."""
    first = plug_in(machine, "sda", "ext4", mib=64)
    machine.run("/usr/bin/mount", "-t", "ext4", "/dev/sda", "/mnt")
    for number in range(50):
        machine.inside(f"/mnt/{number}").write_text("written")
    machine.run("/usr/bin/sync")
    cut_off = tmp_path / "cut-off.disk"
    shutil.copyfile(first.file, cut_off)
    machine.run("/usr/bin/umount", "/mnt")
    disk = machine.plug("sdb", cut_off)
    before = disk.digest()
    machine.survey()
    machine.flush()
    assert disk.digest() == before
    machine.run("/usr/bin/mount", "-t", "ext4", "-o", "ro", "/dev/sdb", "/mnt")
    machine.run("/usr/bin/umount", "/mnt")
    machine.flush()
    assert disk.digest() != before


def test_another_linux_and_its_engine_are_told(machine: DiskMachine, tmp_path: Path) -> None:
    disk = plug_in(machine, "sda", "ext4", tree=linux(tmp_path / "tree"))
    before = disk.digest()
    found = machine.survey()["/dev/sda"]
    machine.flush()
    assert found["system"] == "Debian GNU/Linux 13 (trixie)"
    assert found["engine"] == "26.1.5+dfsg1-9"
    assert (found["store"], found["store_path"]) == ("overlay2", "var/lib/docker")
    assert (found["store_containers"], found["store_images"]) == (3, 2)
    assert found["store_bytes"] > 0
    assert disk.digest() == before


@pytest.mark.parametrize(
    ("place", "path"),
    [("lib", "lib/docker"), ("@/var/lib", "@/var/lib/docker"), ("root/var/lib", "root/var/lib/docker")],
)
def test_a_store_is_found_where_other_systems_keep_it(
    machine: DiskMachine, tmp_path: Path, place: str, path: str
) -> None:
    classic_store(tmp_path / "tree" / place)
    plug_in(machine, "sda", "ext4", tree=tmp_path / "tree")
    found = machine.survey()["/dev/sda"]
    assert (found["store"], found["store_path"]) == ("overlay2", path)


def test_a_file_system_that_is_nothing_but_a_store_is_one(machine: DiskMachine, tmp_path: Path) -> None:
    classic_store(tmp_path)
    plug_in(machine, "sda", "ext4", tree=tmp_path / "docker")
    found = machine.survey()["/dev/sda"]
    assert (found["store"], found["store_path"], found["store_containers"]) == ("overlay2", ".", 3)


def test_partitions_are_told_each_for_itself(machine: DiskMachine, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"")
    with file.open("r+b") as opened:
        opened.truncate(128 * file_systems.MIB)
    places = [(1, 32), (40, 16)]
    file_systems.partition(file, places)
    part = tmp_path / "part"
    file_systems.make(part, "ext4", label="first", mib=32)
    file_systems.write_into(file, part, at=file_systems.MIB)
    machine.plug("sda", file, partitions=places)
    found = machine.survey()
    assert found["/dev/sda"]["table"] == "dos"
    assert "blank" not in found["/dev/sda"]
    assert (found["/dev/sda1"]["label"], found["/dev/sda1"]["partition"]) == ("first", True)
    assert found["/dev/sda2"]["bytes"] == 16 * file_systems.MIB


def test_a_blank_disk_is_blank_and_one_byte_makes_it_another(machine: DiskMachine) -> None:
    blank, first, last = (machine.blank(name) for name in ("sda", "sdb", "sdc"))
    for disk, place in ((first, 12345), (last, 64 * file_systems.MIB - 1)):
        with disk.file.open("r+b") as opened:
            opened.seek(place)
            opened.write(b"x")
    found = machine.survey()
    assert [found[f"/dev/{disk.name}"].get("blank") for disk in (blank, first, last)] == [True, None, None]


def test_other_things_than_file_systems_are_told_and_not_looked_into(machine: DiskMachine) -> None:
    luks = machine.blank("sda")
    file_systems.make_luks(luks.file)
    plug_in(machine, "sdb", "swap")
    magic = machine.blank("sdc")
    with magic.file.open("r+b") as opened:
        opened.write(b"boot2docker, please format-me")
    found = machine.survey()
    assert found["/dev/sda"]["type"] == "crypto_LUKS"
    assert found["/dev/sda"]["closed"] == "a crypto_LUKS is not looked into"
    assert found["/dev/sdb"]["type"] == "swap"
    assert found["/dev/sdc"]["please_format"] is True


def test_what_is_damaged_is_told_and_left_alone(machine: DiskMachine) -> None:
    disk = plug_in(machine, "sda", "ext4", label="dom0-data")
    with disk.file.open("r+b") as opened:
        opened.seek(2048)
        opened.write(b"\xff" * 2048)  # the descriptors of the groups
    before = disk.digest()
    found = machine.survey()["/dev/sda"]
    machine.flush()
    assert "damaged" in found["closed"]
    assert disk.digest() == before


def test_hostile_names_stay_text(machine: DiskMachine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_bytes(b'PRETTY_NAME="\x1b]0;owned\x07\\"},{\xff"\n')
    plug_in(machine, "sda", "ext4", label='"},{\n\x1b[2J', tree=tree)
    found = machine.survey()["/dev/sda"]
    assert found["label"] == r"\x22\x7d\x2c\x7b\x0a\x1b\x5b2J"
    assert "\x1b" not in found.get("system", "")


def test_no_symbolic_link_leads_out_of_a_disk(machine: DiskMachine, tmp_path: Path) -> None:
    """A store where the link points to would be taken for the disk's own; a pipe would be waited for without end."""
    classic_store(machine.root / "var/lib")
    tree = tmp_path / "tree"
    (tree / "var/lib").mkdir(parents=True)
    (tree / "var/lib/docker").symlink_to("/var/lib/docker")
    (tree / "lib").symlink_to("/var/lib")
    (tree / "etc").mkdir()
    subprocess.run(["mkfifo", str(tree / "etc/os-release"), str(tree / "etc/dom0-machine")], check=True)
    plug_in(machine, "sda", "ext4", tree=tree)
    found = machine.survey()["/dev/sda"]
    assert "store" not in found
    assert "system" not in found


def test_nothing_is_mounted_where_containers_would_hold_it(machine: DiskMachine, tmp_path: Path) -> None:
    """They are given /run/dom0 with all that is mounted in it. Who counts a store sees what is mounted meanwhile."""
    plug_in(machine, "sda", "ext4", tree=linux(tmp_path / "tree"))
    with (machine.root / "usr/lib/dom0/disks/look.sh").open("a") as program:
        program.write("timeout() { cat /proc/mounts >/run/mounts; }\n")
    machine.survey()
    rows = machine.inside("/run/mounts").read_text().splitlines()
    places = [place for device, place, *_ in map(str.split, rows) if device == "/dev/sda"]
    assert [place.startswith("/run/dom0/") for place in places] == [False]


def test_a_disk_that_is_gone_is_no_longer_told(machine: DiskMachine) -> None:
    machine.blank("sda")
    machine.blank("sdb")
    assert set(machine.survey()) == {"/dev/sda", "/dev/sdb"}
    machine.unplug("sda")
    assert set(machine.survey()) == {"/dev/sdb"}


def test_a_machine_without_disks_has_an_empty_list(machine: DiskMachine) -> None:
    assert machine.survey() == {}
    assert machine.document() == {"data": {}, "problems": [], "devices": []}


def test_a_lock_whose_holder_was_killed_is_free_also_when_another_program_has_its_number(machine: DiskMachine) -> None:
    machine.inside("/run/dom0/os").mkdir(parents=True, exist_ok=True)
    machine.inside("/run/dom0/os/disk.lock").symlink_to("1")
    assert machine.survey() == {}
