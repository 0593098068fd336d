"""`dom0 os write`: a disk or stick that machines start from, as a file or right on a device."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dom0.cli import options, terminal
from dom0.cli.os.contract_options import Told, contract_options
from dom0.errors import UsageError

if TYPE_CHECKING:
    from dom0.host.uki import Uki

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@click.command("write")
@click.argument("target", metavar="FILE|DEVICE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--size", metavar="SIZE", help="Of the disk, as 2G or 800M; what it takes if left out.")
@contract_options
@click.option("-y", "--yes", is_flag=True, help="Overwrite what is there without asking.")
def write(target: Path, size: str | None, told: Told, yes: bool) -> None:
    """Write a boot disk: for EFI and BIOS, with room for two versions of the base OS.

    On a DEVICE everything that was on it is lost: what that is is shown, and you are asked. It is read back when it is
    written. The rest of a larger device stays free.

    $ dom0 os write dom0.img
    $ dom0 os write /dev/sdb --ssh-key ~/.ssh/id_ed25519.pub --config hostname=attic --config format=blank
    $ docker save dom0:latest -o dom0.tar && dom0 os write dom0.img --image dom0.tar
    """
    from dom0.host import disk_image, media

    os, contract = told.os(), told.contract()
    check_parent(target)
    files = asyncio.run(media.disk_files(os, contract))
    wanted = _bytes(size) if size else disk_image.least_size(files)
    if target.is_block_device():
        asyncio.run(_confirm_device(target, wanted, os, yes=yes))
    elif target.exists() and not yes:
        ask(f"{target} exists. Replace it?", f"{target}: exists")
    asyncio.run(media.write_disk(os, files, target, wanted))
    if not options.quiet():
        terminal.say(f"{target}: boot disk of {terminal.size(wanted)}, {os.title} in slot a")


def check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such directory", hint="make it first")
    if target.exists() and not (target.is_block_device() or target.is_file()):
        raise UsageError(f"{target}: is neither a file nor a block device")


async def _confirm_device(target: Path, size: int, os: Uki, *, yes: bool) -> None:
    from dom0.host import device, uki

    found = await device.look(target)
    device.refuse(found, size)
    for line in device.contents(found):
        terminal.say_to_stderr(line)
    if uki.is_for_virtual_machines(os.release):
        terminal.say_to_stderr(f"{os.title}: not for sticks and cards, it has no drivers for most real machines")
        terminal.say_to_stderr("for those: dom0 os build --flavour metal")
    if not yes:
        ask(f"Overwrite {target}? All of the above is lost.", f"{target}: not confirmed, nothing was written")


def ask(question: str, refusal: str) -> None:
    """Raises UsageError unless a person at a terminal says yes."""
    if not terminal.has_keyboard() or not click.confirm(question, err=True):
        raise UsageError(refusal, hint="--yes confirms")


def _bytes(size: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([KMG]?)", size.strip().upper().removesuffix("B").removesuffix("I"))
    if not found:
        raise UsageError(f"--size {size}: is no size", hint="as 2G or 800M")
    return int(found[1]) * _UNITS[found[2]]
