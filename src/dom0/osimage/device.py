"""A block device that is to be overwritten: what it is, what is on it, whether it is in use; and writing to it.

Model and labels of a device are input from outside, only shown to people.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error, UsageError
from dom0.images.archive import environment
from dom0.run import capture
from dom0.sizes import rounded
from dom0.wording import excerpt

_CHUNK = 4 << 20  # bytes
_COLUMNS = "path,type,size,log-sec,model,tran,ro,label,fstype,mountpoints"
_READ_PARTITIONS = 0x125F  # BLKRRPART of linux/fs.h
_SECTOR = 512  # bytes; where the partition table lies depends on it


class BlockDevice(msgspec.Struct, frozen=True, kw_only=True):
    """As `lsblk --json` prints it."""

    path: str
    type: str  # disk, part, loop, crypt, lvm, …
    size: int  # bytes
    sector: int = msgspec.field(name="log-sec", default=_SECTOR)  # bytes
    model: str | None = None
    tran: str | None = None  # usb, nvme, sata, …
    ro: bool = False
    label: str | None = None
    fstype: str | None = None
    mountpoints: tuple[str | None, ...] = ()
    children: tuple[BlockDevice, ...] = ()

    def below(self) -> Iterator[BlockDevice]:
        for child in self.children:
            yield child
            yield from child.below()


class _Listing(msgspec.Struct, frozen=True):
    blockdevices: tuple[BlockDevice, ...]


class HeldDevice(msgspec.Struct, frozen=True):
    """A device opened with O_EXCL: it cannot be mounted meanwhile, and no other device gets its name."""

    path: Path
    opened: int


async def look(path: Path) -> BlockDevice:
    """Raises Dom0Error."""
    argv = ["lsblk", "--json", "--bytes", "--output", _COLUMNS, "--", str(path)]
    return decode((await capture(argv, env=environment())).stdout)


def decode(listing: str) -> BlockDevice:
    try:
        (node,) = msgspec.json.decode(listing, type=_Listing).blockdevices
    except (msgspec.DecodeError, ValueError) as error:
        raise Dom0Error("lsblk: its output is not understood", hint=str(error)) from error
    return node


def refuse(node: BlockDevice, size: int) -> None:
    """Raises UsageError if `node` is not a whole unused disk with room for `size` bytes."""
    used = [(one, mount) for one in (node, *node.below()) for mount in one.mountpoints if mount]
    if node.type not in ("disk", "loop"):
        raise UsageError(f"{node.path}: is a part of a disk ({node.type})", hint="name the whole disk")
    if used:
        mounts = ", ".join(f"{one.path} at {mount}" for one, mount in used)
        raise UsageError(f"{node.path}: is in use: {mounts}", hint="umount it first, if it is the one you mean")
    if node.ro:
        raise UsageError(f"{node.path}: is write-protected")
    if node.sector != _SECTOR:
        raise UsageError(
            f"{node.path}: has sectors of {node.sector} bytes, and a boot disk is made for {_SECTOR}",
            hint="take another one",
        )
    if node.size < size:
        raise UsageError(f"{node.path}: has {node.size >> 20} MiB, {size >> 20} MiB are needed")


def contents(node: BlockDevice) -> list[str]:
    """Lines that describe what is on the device, for people before it is overwritten."""
    what = " ".join(word for word in (node.model, node.tran) if word)
    lines = [f"{node.path}: {rounded(node.size)}{f', {what.strip()}' if what else ''}"]
    for one in (node, *node.below()):
        if one.fstype:
            label = f" labelled {one.label}" if one.label else ""
            lines.append(f"  {one.path}: {rounded(one.size)}, {one.fstype}{label}")
    if len(lines) == 1:
        parts = f"{len(node.children)} partitions with " if node.children else ""
        lines.append(f"  {parts}nothing that is known")
    return [excerpt(line) for line in lines]


@contextmanager
def held(device: Path) -> Iterator[HeldDevice]:
    """Raises Dom0Error if it is in use."""
    try:
        opened = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)  # fails if it is mounted, in any namespace
    except PermissionError as error:
        raise Dom0Error(f"{device}: {error.strerror}", hint="only root may write to devices: sudo") from error
    except OSError as error:
        raise Dom0Error(f"{device}: {error.strerror}", hint="something uses it: lsblk, lsof") from error
    try:
        yield HeldDevice(device, opened)
    finally:
        os.close(opened)


async def overwrite(device: HeldDevice, image: Path, say: Callable[[str], None]) -> None:
    """Write the disk `image` to `device`, read it back, and move GPT's second table to the end of the device.

    Raises Dom0Error if it does not read as it was written.
    """
    say(f"writing to {device.path}")
    with image.open("rb") as source:
        while chunk := source.read(_CHUNK):
            while chunk:
                chunk = chunk[os.write(device.opened, chunk) :]
    os.fsync(device.opened)
    say("reading it back")
    os.posix_fadvise(device.opened, 0, 0, os.POSIX_FADV_DONTNEED)  # from the device, not from the page cache
    os.lseek(device.opened, 0, os.SEEK_SET)
    with image.open("rb") as source:
        while chunk := source.read(_CHUNK):
            back = b""
            while len(back) < len(chunk) and (more := os.read(device.opened, len(chunk) - len(back))):
                back += more
            if back != chunk:
                raise Dom0Error(
                    f"{device.path}: does not read as it was written", hint="the device is broken; take another one"
                )
    argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--relocate", "gpt-bak-std", str(device.path)]
    await capture(argv, env=environment())  # it cannot tell the kernel while we hold the device
    with contextlib.suppress(OSError):  # a loop device may have none
        fcntl.ioctl(device.opened, _READ_PARTITIONS)
