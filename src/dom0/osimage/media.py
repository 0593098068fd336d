"""Writes boot media from a base OS and a boot contract: a disk as a file or on a device, an ISO."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from dom0 import temporary
from dom0.host.uki import BootFile, Uki
from dom0.osimage import device, disk_image, grub, grub_environment, iso, medium
from dom0.osimage.boot_contract import BootContract

Say = Callable[[str], None]


async def disk_files(os: Uki, contract: BootContract) -> tuple[BootFile, ...]:
    """All files of a disk or stick; the second slot is empty until the first update. Raises Dom0Error."""
    firmware = grub.FIRMWARE[os.architecture]
    return (
        BootFile(f"EFI/BOOT/{firmware.efi_name}", await grub.efi(firmware)),
        BootFile("dom0/grubenv", grub_environment.encode(grub_environment.FRESH)),
        *medium.common_files(os, contract),
    )


async def write_disk(os: Uki, files: Sequence[BootFile], target: Path, size: int) -> None:
    """Write a disk of `size` bytes to a file, whole or not at all. Raises Dom0Error."""
    async with _disk(os, files, size, target.parent) as image:
        image.replace(target)


async def write_device(os: Uki, files: Sequence[BootFile], held: device.HeldDevice, size: int, say: Say) -> None:
    """Write a disk of `size` bytes to the beginning of a device. Raises Dom0Error."""
    say("making the disk")
    async with _disk(os, files, size, temporary.LARGE) as image:
        await device.overwrite(held, image, say)


@asynccontextmanager
async def _disk(os: Uki, files: Sequence[BootFile], size: int, beside: Path) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".dom0-disk-", dir=beside) as directory:
        image = Path(directory) / "disk"
        await disk_image.write(files, grub.FIRMWARE[os.architecture], image, size)
        yield image


async def write_iso(os: Uki, contract: BootContract, target: Path) -> None:
    """Write an ISO to the file `target`, whole or not at all. Raises Dom0Error."""
    files = medium.common_files(os, contract)
    with tempfile.TemporaryDirectory(prefix=".dom0-iso-", dir=target.parent) as directory:
        image = Path(directory) / "iso"
        await iso.write(files, grub.FIRMWARE[os.architecture], image, datetime.now(UTC))
        image.replace(target)
