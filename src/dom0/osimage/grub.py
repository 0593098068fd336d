"""GRUB for EFI and BIOS, made from Debian's packages: one file each, with all modules that os/grub.cfg uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dom0 import temporary
from dom0.errors import Dom0Error
from dom0.run import capture

GRUB = Path("/usr/lib/grub")
_PACKAGES = {"i386-pc": "grub-pc-bin", "x86_64-efi": "grub-efi-amd64-bin", "arm64-efi": "grub-efi-arm64-bin"}
_ELSEWHERE = {"arm64-efi": ", on a machine of that kind: Debian has it only there"}
_MODULES = (
    *("part_gpt", "part_msdos", "fat", "iso9660"),
    *("normal", "configfile", "test", "echo", "sleep", "reboot", "halt", "keystatus", "search"),
    *("linux", "loadenv", "probe"),
)
_FOR_BIOS = ("biosdisk", "chain", "serial", "terminal", "minicmd")
_FOR_EFI = ("efi_gop", "minicmd")


class Firmware(msgspec.Struct, frozen=True):
    """The firmware of an architecture, by GRUB's names; `bios` is "" if no machine has one."""

    efi: str
    efi_name: str  # of the file in EFI/BOOT that the firmware starts
    bios: str = ""


FIRMWARE = {
    "amd64": Firmware("x86_64-efi", "BOOTX64.EFI", "i386-pc"),
    "arm64": Firmware("arm64-efi", "BOOTAA64.EFI"),
}


async def efi(firmware: Firmware, *, first: str = "") -> bytes:
    """The program that EFI starts. Its grub.cfg is where it was loaded from, or where the script `first` finds it.

    Raises Dom0Error.
    """
    return await _image(firmware.efi, firmware.efi, (*_MODULES, *_FOR_EFI), prefix="/dom0", first=first)


async def bios(firmware: Firmware, partition: int) -> tuple[bytes, bytes]:
    """What a BIOS reads first from a disk, and what that loads (`core.img`); its grub.cfg is in that partition."""
    sector = (_directory(firmware.bios) / "boot.img").read_bytes()
    prefix = f"(,gpt{partition})/dom0"
    return sector, await _image(firmware.bios, firmware.bios, (*_MODULES, *_FOR_BIOS), prefix=prefix)


async def bios_from_iso(firmware: Firmware, *, first: str) -> bytes:
    """What a BIOS starts from a CD (`eltorito.img`)."""
    modules = (*_MODULES, *_FOR_BIOS)
    return await _image(firmware.bios, f"{firmware.bios}-eltorito", modules, prefix="/dom0", first=first)


async def _image(platform: str, form: str, modules: Sequence[str], *, prefix: str, first: str = "") -> bytes:
    directory = _directory(platform)
    with temporary.directory("grub") as scratch:
        made = scratch / "image"
        argv = ["grub-mkimage", f"--directory={directory}", f"--format={form}", f"--prefix={prefix}"]
        if first:
            script = scratch / "first.cfg"
            script.write_text(first)
            argv.append(f"--config={script}")
        await capture([*argv, f"--output={made}", *modules])
        return made.read_bytes()


def _directory(platform: str) -> Path:
    directory = GRUB / platform
    if not (directory / "moddep.lst").exists():
        raise Dom0Error(
            f"{directory}: is missing, boot media need it",
            hint=f"apt-get install grub-common {_PACKAGES[platform]}{_ELSEWHERE.get(platform, '')}",
        )
    return directory
