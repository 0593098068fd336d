"""A boot disk as a file: GPT with a partition for BIOS code and an EFI system partition. No loop devices, no mounts.

How a BIOS starts GRUB: it runs the 440 bytes at the beginning of the disk, which load one sector, which loads the rest
of `core.img` from the BIOS boot partition. Their positions are written into them here, as grub-bios-setup does on real
disks.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dom0.errors import UsageError
from dom0.host.uki import BootFile
from dom0.images.archive import environment
from dom0.osimage import grub, medium
from dom0.run import capture

MIB = 1 << 20
_SECTOR = 512
_BIOS_START, _BIOS_SIZE = 1 * MIB, 1 * MIB
_ESP_START = 2 * MIB
_ESP_NUMBER = 2
_CLUSTER = 4096  # bytes; the environment block has to be in one
_LEAST_ESP = 272 * MIB  # below that FAT32 has smaller clusters
_BEHIND = 1 * MIB  # GPT's second table
_CODE = 440  # bytes of boot code before the partition table


def least_size(files: Sequence[BootFile]) -> int:
    """Bytes of a disk for `files` and a second slot, with room for slots of one and a half times the size."""
    slots = sum(file.size for file in files if file.name.startswith("dom0/a/"))
    others = sum(file.size for file in files) - slots
    esp = max(_LEAST_ESP, others + slots * 3 + 32 * MIB)
    return -(-(_ESP_START + esp + _BEHIND) // MIB) * MIB


def refuse(size: int, files: Sequence[BootFile]) -> None:
    """Raises UsageError if a disk of `size` bytes is too small for `files`."""
    least = least_size(files)
    if size < least:
        raise UsageError(f"--size {size // MIB}M: is too small", hint=f"--size {least // MIB}M, or leave it out")


async def write(files: Sequence[BootFile], firmware: grub.Firmware, image: Path, size: int) -> None:
    """Write a disk of `size` bytes to the new file `image`. Raises UsageError if it is too small, Dom0Error."""
    refuse(size, files)
    loader = await grub.bios(firmware, _ESP_NUMBER) if firmware.bios else None
    with image.open("xb") as opened:
        opened.truncate(size)
    esp = (size - _ESP_START - _BEHIND) // MIB * MIB
    partitions = [
        "label: gpt",
        "unit: sectors",
        f"start={_BIOS_START // _SECTOR}, size={_BIOS_SIZE // _SECTOR}, name=dom0-bios, "
        "type=21686148-6449-6E6F-744E-656564454649",
        f"start={_ESP_START // _SECTOR}, size={esp // _SECTOR}, name=dom0-boot, "
        "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    ]
    lines = "".join(f"{line}\n" for line in partitions)
    await capture(["sfdisk", "--quiet", str(image)], stdin=lines.encode(), env=environment())
    start = str(_ESP_START // _SECTOR)
    fat = ["mkfs.vfat", "-F", "32", "-n", medium.LABEL, "-s", str(_CLUSTER // _SECTOR), "-h", start, "--offset", start]
    await capture([*fat, str(image), str(esp // 1024)], env=environment())
    with tempfile.TemporaryDirectory(prefix="dom0-medium-", dir=image.parent) as scratch:
        medium.write_files(files, Path(scratch))
        await copy(Path(scratch), f"{image}@@{_ESP_START}")
    if loader is not None:
        _embed(*loader, image)


async def copy(directory: Path, file_system: str) -> None:
    """Copy what is below `directory` into a FAT file system, in the form that mtools take (FILE@@OFFSET)."""
    await capture(["mcopy", "-s", "-Q", "-i", file_system, *_names(directory), "::/"], env=environment())


def _names(directory: Path) -> list[str]:
    return [str(path) for path in sorted(directory.iterdir())]


def _embed(boot_sector: bytes, core_image: bytes, image: Path) -> None:
    """Write GRUB's first sector and its core image to the disk, each with the position of the next part."""
    assert len(core_image) <= _BIOS_SIZE
    start = _BIOS_START // _SECTOR
    sector, core = bytearray(boot_sector), bytearray(core_image)
    struct.pack_into("<Q", sector, 0x5C, start)  # GRUB_BOOT_MACHINE_KERNEL_SECTOR
    sector[0x66:0x68] = b"\x90\x90"  # GRUB_BOOT_MACHINE_DRIVE_CHECK: a disk, also where the BIOS says otherwise
    struct.pack_into("<Q", core, _SECTOR - 12, start + 1)  # the block list at the end of core.img's first sector
    with image.open("r+b") as opened:
        opened.write(sector[:_CODE])
        opened.seek(_BIOS_START)
        opened.write(core)
