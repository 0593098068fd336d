"""A block device that is to be overwritten: what it is, what is on it, whether anything uses it; and writing to it.

What a device says of itself (model, labels) was written by others, and is for people to read only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error, UsageError
from dom0.images.archive import environment
from dom0.run import capture

_CHUNK = 4 << 20  # bytes
_COLUMNS = "path,type,size,model,tran,ro,label,fstype,mountpoints"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """As `lsblk --json` tells it."""

    path: str
    type: str  # disk, part, loop, crypt, lvm, …
    size: int  # bytes
    model: str | None = None
    tran: str | None = None  # usb, nvme, sata, …
    ro: bool = False
    label: str | None = None
    fstype: str | None = None
    mountpoints: tuple[str | None, ...] = ()
    children: tuple[Node, ...] = ()

    def below(self) -> Iterator[Node]:
        for child in self.children:
            yield child
            yield from child.below()


class _Listing(msgspec.Struct, frozen=True):
    blockdevices: tuple[Node, ...]


def is_device(path: Path) -> bool:
    return path.is_block_device()


async def look(path: Path) -> Node:
    """Raises Dom0Error."""
    argv = ["lsblk", "--json", "--bytes", "--output", _COLUMNS, "--", str(path)]
    return decode((await capture(argv, env=environment())).stdout)


def decode(listing: str) -> Node:
    try:
        (node,) = msgspec.json.decode(listing, type=_Listing).blockdevices
    except (msgspec.DecodeError, ValueError) as error:
        raise Dom0Error("lsblk: said what is not understood", hint=str(error)) from error
    return node


def refuse(node: Node, size: int) -> None:
    """Raises UsageError if `node` is not a whole disk that nobody uses, with room for `size` bytes."""
    used = [(one, mount) for one in (node, *node.below()) for mount in one.mountpoints if mount]
    if node.type not in ("disk", "loop"):
        raise UsageError(f"{node.path}: is a part of a disk ({node.type})", hint="name the whole disk")
    if used:
        places = ", ".join(f"{one.path} at {mount}" for one, mount in used)
        raise UsageError(f"{node.path}: is in use: {places}", hint="umount it first, if it is the one you mean")
    if node.ro:
        raise UsageError(f"{node.path}: is write-protected")
    if node.size < size:
        raise UsageError(f"{node.path}: has {node.size >> 20} MiB, {size >> 20} MiB are needed")


def contents(node: Node) -> list[str]:
    """What a person should know before it is gone, a line for each thing."""
    what = " ".join(word for word in (node.model, node.tran) if word)
    lines = [f"{node.path}: {_size(node.size)}{f', {what.strip()}' if what else ''}"]
    for one in (node, *node.below()):
        if one.fstype:
            label = f" labelled {one.label}" if one.label else ""
            lines.append(f"  {one.path}: {_size(one.size)}, {one.fstype}{label}")
    if len(lines) == 1:
        lines.append("  " + (f"{len(node.children)} partitions without a known content" if node.children else "empty"))
    return lines


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"


async def overwrite(device: Path, image: Path) -> None:
    """Write the disk `image` to `device`, read it back, and move GPT's second table to the end of the device.

    Raises Dom0Error if somebody else uses it, or it does not read as it was written.
    """
    try:
        opened = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)  # fails for what is mounted, wherever that is
    except OSError as error:
        raise Dom0Error(f"{device}: {error.strerror}", hint="something uses it: lsblk, lsof") from error
    try:
        _write(opened, image)
        _compare(opened, device, image)
    finally:
        os.close(opened)
    await capture(["sfdisk", "--quiet", "--relocate", "gpt-bak-std", str(device)], env=environment())


def _write(opened: int, image: Path) -> None:
    with image.open("rb") as source:
        while chunk := source.read(_CHUNK):
            while chunk:
                chunk = chunk[os.write(opened, chunk) :]
    os.fsync(opened)


def _compare(opened: int, device: Path, image: Path) -> None:
    """From the device, not from what the kernel still remembers of it."""
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(opened, 0, os.SEEK_SET)
    with image.open("rb") as source:
        while chunk := source.read(_CHUNK):
            back = b""
            while len(back) < len(chunk) and (more := os.read(opened, len(chunk) - len(back))):
                back += more
            if back != chunk:
                raise Dom0Error(
                    f"{device}: does not read as it was written", hint="the device is broken; take another one"
                )
