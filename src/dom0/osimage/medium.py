"""The files of a boot medium, for a disk and an ISO: boot loader, slots, boot contract. docs/os.md shows the same as a
table.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path

from dom0.errors import UsageError
from dom0.host.uki import BootFile, Section, Uki, slot_files
from dom0.osimage.boot_contract import BootContract
from dom0.package_data import os_recipe

LABEL = "DOM0-BOOT"  # by which the base OS finds its medium, see build.COMMAND_LINE
_LARGEST = (4 << 30) - 1  # bytes of a file on FAT


def contract_files(contract: BootContract) -> tuple[BootFile, ...]:
    """Raises UsageError for an invalid image, or where one of its files is too large for a medium."""
    files = [BootFile("dom0/config", contract.config), BootFile("dom0/authorized_keys", contract.authorized_keys)]
    image = [BootFile("dom0/image.tar", image_of(contract.image))] if contract.image else []
    store = [BootFile("dom0/image.store", store_of(contract.store))] if contract.store else []
    return (*(file for file in files if file.size), *image, *store)


def common_files(os: Uki, contract: BootContract) -> tuple[BootFile, ...]:
    """Those that a disk and an ISO have in common. An ISO is read-only, so it has one slot and no count of tries."""
    slot = (BootFile(f"dom0/a/{file.name}", file.content) for file in slot_files(os))
    grub_config = (os_recipe() / "grub.cfg").read_bytes()
    return (BootFile("dom0/grub.cfg", grub_config), *slot, *contract_files(contract))


def image_of(file: Path) -> Section:
    """Raises UsageError if it is no archive of images, or too large for a medium."""
    part = _part(file, f"--image {file}")
    try:
        with tarfile.open(file, "r:") as archive:
            first = {member.name for member, _ in zip(archive, range(10_000), strict=False)}
    except tarfile.TarError as error:
        raise UsageError(f"--image {file}: is not a tar file", hint="dom0 image save dom0.tar makes one") from error
    if not first & {"manifest.json", "index.json"}:
        raise UsageError(f"--image {file}: holds no image", hint="dom0 image save dom0.tar makes one")
    return part


def store_of(file: Path) -> Section:
    """What prepared.prepare made. Raises UsageError if it is too large for a medium."""
    return _part(file, "what was prepared of them")


def _part(file: Path, what: str) -> Section:
    size = file.stat().st_size
    if size > _LARGEST:
        raise UsageError(f"{what}: is larger than 4 GiB, which no file on a boot medium can be")
    return Section(file, 0, size)


def write_files(files: Iterable[BootFile], directory: Path) -> None:
    for file in files:
        target = directory / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as opened:
            opened.writelines(file.content.chunks() if isinstance(file.content, Section) else [file.content])
