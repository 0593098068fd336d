"""What GRUB decides on real firmware: which slot is started, and that it counts. The base OSes are tiny ones."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0.host import uki
from dom0.host.uki import BootFile
from dom0.osimage import disk_image, grub_environment, media, medium, qemu
from dom0.osimage.boot_contract import BootContract
from dom0.testing import tiny_os, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
Firmware = Callable[[], qemu.Bios | qemu.Uefi]
ARMED = {"good": "a", "next": "b", "left": "3", "failed": ""}


@pytest.fixture
def place(virtual_machines: None) -> Iterator[Path]:
    with vm.scratch() as directory:
        yield directory


@pytest.fixture(params=["bios", "uefi"])
def firmware(request: pytest.FixtureRequest, place: Path) -> Firmware:
    return qemu.Bios if request.param == "bios" else lambda: uefi(place)


def uefi(place: Path) -> qemu.Uefi:
    """As new from the shop."""
    return qemu.Uefi(Path(shutil.copyfile(qemu.UEFI_VARIABLES, place / "variables")))


class Disk:
    """A boot disk with version 1 in slot a."""

    def __init__(self, place: Path) -> None:
        self.file = place / "disk.img"
        self.place = place
        self._file_system = f"{self.file}@@2M"
        os = tiny_os.make(place, "1")
        files = asyncio.run(media.disk_files(os, BootContract()))
        asyncio.run(media.write_disk(os, files, self.file, disk_image.least_size(files)))

    def put(self, name: str, content: bytes) -> None:
        argv = ["mcopy", "-o", "-i", self._file_system, "-", f"::{name}"]
        subprocess.run(argv, check=True, input=content)

    def put_slot(self, slot: str, os: uki.Uki) -> None:
        medium.write_files([BootFile(f"{slot}/{one.name}", one.content) for one in uki.slot_files(os)], self.place)
        argv = ["mcopy", "-s", "-o", "-i", self._file_system, str(self.place / slot), "::dom0/"]
        subprocess.run(argv, check=True)

    def arm(self, **variables: str) -> None:
        self.put("dom0/grubenv", grub_environment.encode(variables))

    def environment(self) -> dict[str, str]:
        argv = ["mtype", "-i", self._file_system, "::dom0/grubenv"]
        return grub_environment.decode(subprocess.run(argv, check=True, capture_output=True).stdout)

    def start(self, firmware: qemu.Bios | qemu.Uefi) -> str:
        """From power-on until the machine has switched itself off or restarts: what the console said."""
        with vm.VirtualMachine(firmware, drives=[qemu.Drive(self.file)], memory=512) as machine:
            machine.wait()
            return machine.console()


@pytest.fixture
def disk(place: Path) -> Disk:
    return Disk(place)


def test_one_that_panics_has_its_tries_and_then_the_old_one_starts_again(disk: Disk, firmware: Firmware) -> None:
    disk.put_slot("b", tiny_os.make(disk.place, "2", tiny_os.PANICS))
    disk.arm(**ARMED)
    for left in ("2", "1", "0"):
        said = disk.start(firmware())
        assert "tiny 2: " in said
        assert "dom0.slot=b" in said
        assert "dom0.trial=900" in said
        assert disk.environment() == ARMED | {"left": left}
    said = disk.start(firmware())
    assert "tiny 1: " in said
    assert "dom0.slot=a" in said
    assert "dom0.trial" not in said
    assert disk.environment() == {"good": "a", "next": "", "left": "", "failed": "b"}


def test_one_that_was_blessed_is_started_from_then_on(disk: Disk) -> None:
    disk.put_slot("b", tiny_os.make(disk.place, "2"))
    disk.arm(good="b", next="", left="", failed="")
    said = disk.start(qemu.Bios())
    assert "tiny 2: " in said
    assert "dom0.trial" not in said


def test_the_kernel_is_told_the_medium_that_grub_came_from(disk: Disk, firmware: Firmware) -> None:
    with disk.file.open("rb") as opened:
        opened.seek((2 << 20) + 67)
        identity = opened.read(4)[::-1].hex().upper()
    told = f"dom0.medium=UUID={identity[:4]}-{identity[4:]}"
    assert f"{told} console" in disk.start(firmware())


def test_a_damaged_count_means_the_slot_that_is_whole(disk: Disk, firmware: Firmware) -> None:
    disk.put("dom0/grubenv", b"\xff" * 1024)
    assert "tiny 1: " in disk.start(firmware())
    disk.put("dom0/grubenv", b"")
    assert "tiny 1: " in disk.start(firmware())


@pytest.mark.parametrize("damage", ["sums", "linux", "initrd"])
def test_where_the_good_slot_is_damaged_the_other_one_starts(damage: str, disk: Disk) -> None:
    disk.put_slot("b", tiny_os.make(disk.place, "2"))
    argv = ["mdel", "-i", f"{disk.file}@@2M", f"::dom0/a/{damage}"]
    subprocess.run(argv, check=True)
    said = disk.start(qemu.Bios())
    assert "tiny 2: " in said
    assert "dom0.slot=b" in said


def test_an_update_that_is_not_whole_is_skipped_for_the_good_one(disk: Disk) -> None:
    disk.arm(**ARMED)
    assert "tiny 1: " in disk.start(qemu.Bios())
    assert disk.environment()["left"] == "2"
