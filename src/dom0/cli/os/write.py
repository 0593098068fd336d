"""`dom0 os write`: a disk or stick that machines start from, as a file or right on a device."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import sizes, terminal
from dom0.cli.os.contract_options import MediumOptions, contract_options
from dom0.cli.report import Report
from dom0.errors import UsageError

if TYPE_CHECKING:
    from dom0.host.uki import BootFile, Uki

_LARGEST = 2 << 40  # bytes; what FAT32 can have with sectors of 512


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    target: str  # file or device
    size: int  # bytes
    version: str  # of the base OS on it


@click.command("write")
@click.argument("target", metavar="FILE|DEVICE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--size", metavar="SIZE", help="Of the disk, as 2G or 800M; what it takes if left out.")
@contract_options
@click.option("-y", "--yes", is_flag=True, help="Overwrite what is there without asking.")
@click.option("--json", "as_json", is_flag=True, help="An object: target, size, version.")
def write(target: Path, size: str | None, given: MediumOptions, yes: bool, as_json: bool) -> None:
    """Write a boot disk: for EFI and BIOS, with room for two versions of the base OS.

    On a DEVICE everything that was on it is lost: what that is is shown, and you are asked. It is read back when it is
    written. The rest of a larger device stays free.

    $ dom0 os write dom0.img
    $ dom0 os write /dev/sdb --ssh-key ~/.ssh/id_ed25519.pub --config hostname=attic --config format=blank
    $ dom0 image save dom0.tar && dom0 os write dom0.img --image dom0.tar
    """
    from dom0.osimage import disk_image, media

    os, contract, wanted = given.os(), given.contract(), 0
    files = asyncio.run(media.disk_files(os, contract))
    if size:
        try:
            wanted = sizes.parse(size)
        except ValueError as error:
            raise UsageError(f"--size {size}: is no size", hint="as 2G or 800M") from error
        if wanted > _LARGEST:
            raise UsageError(f"--size {size}: is more than a boot disk can have", hint="2048G at most")
        disk_image.refuse(wanted, files)
    say = Report(beside=as_json).say

    async def prepared(room: int) -> tuple[BootFile, ...]:
        """All files; without what was prepared of the images where `room`, in bytes, is too small for that."""
        more = await media.disk_files(os, await given.prepared(contract, say))
        if disk_image.least_size(more) <= room:
            return more
        say("the images are not prepared, and loaded at the first boot, which takes longer: there is no room for that")
        return files

    if target.is_block_device():
        wanted = asyncio.run(_write_device(os, files, prepared, target, wanted, say, yes=yes))
    else:
        confirm_file(target, yes=yes)
        files = asyncio.run(prepared(wanted or _LARGEST))
        wanted = wanted or disk_image.least_size(files)
        asyncio.run(media.write_disk(os, files, target, wanted))
    medium = Medium(target=str(target), size=wanted, version=os.version)
    terminal.say_done(medium, f"{target}: boot disk of {terminal.size(wanted)}, {os.title} in slot a", as_json=as_json)


def confirm_file(target: Path, *, yes: bool) -> None:
    """Raises UsageError where no file can be made, or one is there and is to stay."""
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such directory", hint="make it first")
    if target.is_block_device():
        raise UsageError(f"{target}: is a device", hint="`dom0 os write` writes sticks; an ISO is copied with dd")
    if target.exists() and not target.is_file():
        raise UsageError(f"{target}: is no file")
    devices, parent = Path("/dev"), target.parent.resolve()
    if parent.is_relative_to(devices) and parent.stat().st_dev == devices.stat().st_dev:
        # A file would take memory, and the place of a device that somebody meant. /dev/shm is another file system.
        raise UsageError(f"{target}: no such device", hint="those that are there: lsblk")
    if target.exists() and not yes:
        terminal.confirm(f"{target} exists. Replace it?", f"{target}: exists")


async def _write_device(
    os: Uki,
    files: Sequence[BootFile],
    prepared: Callable[[int], Awaitable[Sequence[BootFile]]],
    target: Path,
    size: int,
    say: Callable[[str], None],
    *,
    yes: bool,
) -> int:
    """Bytes of the disk: `size`, or what it takes if that is 0. It has room for `files`, and gets those of `prepared`.

    The device is held from before it is shown until it is written, so that no other takes its place.
    """
    from dom0.host import uki
    from dom0.osimage import device, disk_image, media

    least = size or disk_image.least_size(files)
    device.refuse(await device.look(target), least)  # which says more than that it cannot be held
    with device.held(target) as held:
        found = await device.look(target)
        device.refuse(found, least)
        for line in device.contents(found):
            terminal.say_to_stderr(line)
        if uki.is_for_virtual_machines(os.release):
            terminal.say_to_stderr(f"{os.title}: not for sticks and cards, it has no drivers for most real machines")
            terminal.say_to_stderr("for those: dom0 os build --flavour metal")
        if not yes:
            question = f"Overwrite {target}? All of the above is lost."
            terminal.confirm(question, f"{target}: not confirmed, nothing was written")
        files = await prepared(size or found.size)
        size = size or disk_image.least_size(files)
        await media.write_device(os, files, held, size, say)
        return size
