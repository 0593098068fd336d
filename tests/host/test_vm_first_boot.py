"""The first boot of a machine whose disk is empty: its images come prepared on the boot medium."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.host import uki
from dom0.osimage import boot_contract, build, disk_image, media, prepared, qemu
from dom0.osimage.boot_contract import BootContract
from dom0.testing import data_disk, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]
TAKEN, LOADED = "are in the Engine's store", "is loaded by the Engine: .*one of them is damaged"


@pytest.fixture
def place(virtual_machines: None) -> Iterator[Path]:
    with vm.scratch() as directory:
        yield directory


def contract(place: Path, key: vm.Key) -> BootContract:
    """Of a machine that may format the disk that it finds."""
    (place / "scratch").mkdir()
    archive = data_disk.provide_archive()
    store = asyncio.run(prepared.prepare(archive, place / "scratch"))
    keys = boot_contract.authorized_keys([key.file.with_suffix(".pub")])
    return BootContract(boot_contract.config(["format=blank"]), keys, archive, store)


def boot_disk(file: Path, told: BootContract) -> qemu.Drive:
    os_file = uki.read(vm.base_os() / build.UKI)
    files = asyncio.run(media.disk_files(os_file, told))
    asyncio.run(media.write_disk(os_file, files, file, disk_image.least_size(files)))
    return qemu.Drive(file)


def images(machine: vm.VirtualMachine) -> list[str]:
    """Their IDs: names come and go with generations."""
    return sorted({*machine.ssh("docker images --no-trunc --quiet").stdout.split()})


def test_images_that_lie_prepared_on_the_medium_are_those_of_the_archive(place: Path) -> None:
    """Also after a power cut while they are unpacked; and damaged ones are loaded from the archive."""
    key = vm.Key(place)
    told = contract(place, key)
    drives = [boot_disk(place / "boot.img", told), vm.blank(place / "data", 8 << 30)]
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for("unpacking the images")
        machine.cut_power()
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for(TAKEN)
        machine.wait_for_services()
        assert "loading" not in machine.console()
        prepared_images = images(machine)
        names = machine.ssh("docker images --format '{{.Repository}}'").stdout.split()
        assert {"dom0", "dom0-base", "dom0-rootfs"} <= {*names}  # what it makes more images on, offline
        assert "dom0:latest" in machine.ssh("docker save dom0:latest | docker load").stdout
        machine.cut_power()
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for_services()
        assert images(machine) == prepared_images
        assert "loading" not in machine.console()
    assert told.store is not None
    damaged = Path(shutil.copyfile(told.store, place / "damaged"))
    content = bytearray(damaged.read_bytes())
    content[content.index(b"moby")] ^= 1  # containerd's name for what is the Engine's
    damaged.write_bytes(content)
    told = BootContract(told.config, told.authorized_keys, told.image, damaged)
    drives = [boot_disk(place / "other.img", told), vm.blank(place / "other", 8 << 30)]
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for(LOADED)
        machine.wait_for_services()
        assert images(machine) == prepared_images
        assert "damaged" in machine.ssh("dom0 boot").stdout
