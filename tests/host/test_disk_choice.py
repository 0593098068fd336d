"""Which disk `disk` of the base OS would take for the data, and why; on real file systems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.testing import file_systems
from dom0.testing.disk_machine import DiskMachine

UUID = "11111111-2222-3333-4444-555555555555"
MINE = "4c4c4544-0000-1111-2222-333333333333"


def foreign(directory: Path, driver: str = "overlay2", engine: str = "") -> Path:
    """What another Linux has on its disk."""
    tree = directory / f"{driver}{engine}"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12"\n')
    (tree / "var/lib/docker/image" / driver / "imagedb").mkdir(parents=True)
    if engine:
        (tree / "var/lib/dpkg").mkdir()
        (tree / "var/lib/dpkg/status").write_text(f"Package: docker-ce\nVersion: 5:{engine}~debian\n\n")
    return tree


def ours(directory: Path, machine: str) -> Path:
    tree = directory / machine
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/dom0-machine").write_text(f"{machine}\n")
    return tree


def damaged(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(2048)
        opened.write(b"\xff" * 2048)


Plug = Callable[..., None]


@pytest.fixture
def plug(machine: DiskMachine) -> Plug:
    """Plugs in a disk with a file system that is made with the keywords of `file_systems.make`."""

    def plug(name: str, kind: str = "ext4", *, uuid: str = "", ruin: bool = False, **options: object) -> None:
        file = machine.root / f"{name}.disk"
        file_systems.make(file, kind, **options)  # type: ignore[arg-type]
        if uuid:
            file_systems.run(["tune2fs", "-U", uuid, str(file)])
        if ruin:
            damaged(file)
        machine.plug(name, file)

    return plug


def choice(machine: DiskMachine, contract: str = "") -> str:
    machine.contract(contract)
    return machine.disk("choose").stdout.strip()


def test_without_any_disk_it_is_memory(machine: DiskMachine) -> None:
    assert choice(machine) == "memory: no disk is labelled dom0-data"
    assert choice(machine, "data=ram") == "memory: the boot contract says data=ram"


def test_our_label_comes_before_all_others(machine: DiskMachine, plug: Plug, tmp_path: Path) -> None:
    plug("sda", label="boot2docker-data")
    assert choice(machine) == "boot2docker /dev/sda: its label is boot2docker-data"
    plug("sdb", tree=foreign(tmp_path))
    machine.blank("sdc")
    assert choice(machine, "adopt=use format=blank").startswith("boot2docker /dev/sda")
    plug("sdd", "ext4", label="dom0-data")
    assert choice(machine, "adopt=use format=blank") == "own /dev/sdd: its label is dom0-data"
    assert choice(machine, "data=ram").startswith("memory: ")


def test_a_label_on_what_no_data_can_be_on_is_not_taken(machine: DiskMachine, plug: Plug) -> None:
    plug("sda", "swap", label="dom0-data")
    assert choice(machine).startswith("memory: no disk is labelled")


def test_what_the_contract_names_is_taken_or_nothing(machine: DiskMachine, plug: Plug) -> None:
    plug("sda", label="dom0-data")
    plug("sdb", label="other", uuid=UUID)
    for named in ("label=other", f"uuid={UUID.upper()}", "/dev/sdb"):
        assert choice(machine, f"data={named}") == f"own /dev/sdb: the boot contract says data={named}"
    assert (
        choice(machine, "data=label=none")
        == "memory: the boot contract says data=label=none, and there is no such disk"
    )
    machine.blank("sdc")
    assert "format=blank lets it be formatted" in choice(machine, "data=/dev/sdc")
    assert choice(machine, "data=/dev/sdc format=blank").startswith("format /dev/sdc: ")
    plug("sdd", "swap")
    assert choice(machine, "data=/dev/sdd format=blank").endswith("no file system that data can be on: it holds swap")


def test_a_named_disk_of_another_linux_needs_a_policy(machine: DiskMachine, plug: Plug, tmp_path: Path) -> None:
    plug("sda", label="root", tree=foreign(tmp_path))
    assert "belongs to another Linux; adopt=use" in choice(machine, "data=label=root")
    assert (
        choice(machine, "data=label=root adopt=use-readonly")
        == "adopt /dev/sda: the boot contract says adopt=use-readonly"
    )


def test_a_store_of_another_linux_is_left_alone_unless_the_contract_says_so(
    machine: DiskMachine, plug: Plug, tmp_path: Path
) -> None:
    plug("sda", tree=foreign(tmp_path))
    assert choice(machine).startswith("memory: ")
    assert choice(machine, "adopt=use") == "adopt /dev/sda: the boot contract says adopt=use"
    assert choice(machine, "adopt=copy-images") == "memory: no disk is labelled dom0-data; copy-images needs one"
    plug("sdb", tree=tmp_path / "overlay2", uuid=UUID)
    assert choice(machine, "adopt=use").startswith("memory: several disks hold a Docker store: /dev/sda (uuid ")
    assert choice(machine, f"adopt=use data=uuid={UUID}").startswith("adopt /dev/sdb: ")


def test_a_store_that_the_engine_cannot_work_with_is_refused(machine: DiskMachine, plug: Plug, tmp_path: Path) -> None:
    plug("sda", tree=foreign(tmp_path, "devicemapper"))
    assert "its storage driver is devicemapper" in choice(machine, "adopt=use")


def test_a_store_of_a_newer_engine_is_refused(machine: DiskMachine, plug: Plug, tmp_path: Path) -> None:
    machine.install("dockerd")
    plug("sda", tree=foreign(tmp_path, engine="20.10.5"))
    assert choice(machine, "adopt=use").startswith("adopt /dev/sda")
    machine.unplug("sda")
    plug("sdb", tree=foreign(tmp_path, engine="99.0.1"))
    assert "its Engine is 99.0.1~debian, newer than the one here" in choice(machine, "adopt=use")


def test_of_two_disks_of_ours_the_one_is_taken_that_this_machine_used_last(
    machine: DiskMachine, plug: Plug, tmp_path: Path
) -> None:
    plug("sda", label="dom0-data", tree=ours(tmp_path, "another-machine-1"))
    plug("sdb", label="dom0-data", tree=ours(tmp_path, MINE))
    assert choice(machine).startswith("memory: several disks are labelled dom0-data: /dev/sda (uuid ")
    machine.call_it(MINE)
    assert choice(machine).startswith("own /dev/sdb: of several disks that are labelled dom0-data it is the one")


def test_the_only_disk_is_taken_also_from_another_machine_and_that_is_said(
    machine: DiskMachine, plug: Plug, tmp_path: Path
) -> None:
    """It was moved to new hardware. Without names of both machines nothing is known."""
    plug("sda", label="dom0-data", tree=ours(tmp_path, "another-machine-1"))
    assert choice(machine) == "own /dev/sda: its label is dom0-data"
    machine.call_it(MINE)
    assert choice(machine).startswith("own /dev/sda: its label is dom0-data; another machine used it last")
    machine.unplug("sda")
    plug("sdb", label="dom0-data", tree=ours(tmp_path, "unknown"))
    assert choice(machine) == "own /dev/sdb: its label is dom0-data"


def test_between_a_disk_and_its_copy_nobody_guesses(machine: DiskMachine, plug: Plug, tmp_path: Path) -> None:
    machine.call_it(MINE)
    for name in ("sda", "sdb"):
        plug(name, label="dom0-data", tree=tmp_path / MINE if name == "sdb" else ours(tmp_path, MINE), uuid=UUID)
    machine.blank("sdc")
    assert choice(machine, "format=blank").startswith("memory: several disks are labelled dom0-data")
    assert choice(machine, f"data=uuid={UUID}").startswith("memory: several disks are uuid=")
    assert choice(machine, "data=/dev/sdb").startswith("own /dev/sdb")


def test_a_blank_disk_is_formatted_only_with_consent(machine: DiskMachine) -> None:
    machine.blank("sda")
    assert "format=blank in the boot contract" in choice(machine)
    assert choice(machine, "format=blank").startswith("format /dev/sda: ")
    machine.blank("sdb")
    assert choice(machine, "format=blank").startswith("memory: several disks are blank: /dev/sda")
    assert choice(machine, "format=blank data=/dev/sdb").startswith("format /dev/sdb: ")


def test_a_small_or_removable_blank_disk_is_none_to_take(machine: DiskMachine) -> None:
    machine.blank("sda", mib=32)
    machine.blank("sdb")
    (machine.root / "sys/class/block/sdb/removable").write_text("1\n")
    assert choice(machine, "format=blank").startswith("memory: ")


def test_a_disk_with_anything_on_it_is_never_one_to_format(machine: DiskMachine, plug: Plug) -> None:
    for name, place in (("sda", 0), ("sdb", 64 * file_systems.MIB - 1)):
        disk = machine.blank(name)
        with disk.file.open("r+b") as opened:
            opened.seek(place)
            opened.write(b"x")
    plug("sdc", "vfat", label="PHOTOS")
    plug("sdd", ruin=True)
    table = machine.blank("sde")
    file_systems.partition(table.file, [(1, 32)])
    assert choice(machine, "format=blank").startswith("memory: ")
    for name in ("sda", "sdb", "sdc", "sdd", "sde"):
        assert not choice(machine, f"format=blank data=/dev/{name}").startswith("format")
