"""A read-only boot medium as an ISO: for EFI and BIOS, on a CD or copied to a USB stick.

GRUB for EFI is in a FAT file system that is appended as a partition, GRUB for BIOS in the ISO's own file system. Both
find the ISO by its time of creation, which is its UUID: a medium with the same label may be another one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dom0.host.uki import BootFile
from dom0.images.archive import environment
from dom0.osimage import disk_image, grub, medium
from dom0.run import capture

_BIOS_IMAGE = "dom0/eltorito.img"
_MIB = 1 << 20
# Partition types for xorriso: GUIDs with their first three parts in little endian.
_ESP_TYPE = "28732ac11ff8d211ba4b00a0c93ec93b"
_DATA_TYPE = "a2a0d0ebe5b9334487c068b6b72699c7"


async def write(files: Sequence[BootFile], firmware: grub.Firmware, iso: Path, created: datetime) -> None:
    """Write an ISO to the file `iso`. Raises CommandFailed."""
    first = f"search --set=root --fs-uuid {created:%Y-%m-%d-%H-%M-%S}-00\nset prefix=($root)/dom0\n"
    with tempfile.TemporaryDirectory(prefix="dom0-iso-", dir=iso.parent) as directory:
        tree, esp = Path(directory) / "tree", Path(directory) / "esp"
        medium.write_files(files, tree)
        loader = BootFile(f"EFI/BOOT/{firmware.efi_name}", await grub.efi(firmware, first=first))
        size = (loader.size // _MIB + 2) * _MIB
        await capture(["mkfs.vfat", "-n", "DOM0-ESP", "-C", str(esp), str(size // 1024)], env=environment())
        medium.write_files([loader], Path(directory) / "loader")
        await disk_image.copy(Path(directory) / "loader", str(esp))
        if firmware.bios:
            (tree / _BIOS_IMAGE).write_bytes(await grub.bios_from_iso(firmware, first=first))
        mbr = grub.GRUB / firmware.bios / "boot_hybrid.img"
        from_disk = ["--grub2-mbr", str(mbr), "--mbr-force-bootable"]
        from_cd = ["-b", _BIOS_IMAGE, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"]
        argv = [  # as grub-mkrescue does it, and Ubuntu's installer
            *("xorriso", "-as", "mkisofs", "-quiet", "-r", "-iso-level", "3", "-V", medium.LABEL, "-o", str(iso)),
            *(f"--modification-date={created:%Y%m%d%H%M%S}00", "-partition_offset", "16"),
            *(from_disk if firmware.bios else ()),
            *("-append_partition", "2", _ESP_TYPE, str(esp), "-appended_part_as_gpt", "-iso_mbr_part_type", _DATA_TYPE),
            *("-c", "dom0/boot.catalog"),
            *([*from_cd, "-eltorito-alt-boot"] if firmware.bios else ()),
            *("-e", "--interval:appended_partition_2:all::", "-no-emul-boot", str(tree)),
        ]
        await capture(argv, env=environment())
