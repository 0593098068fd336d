"""Disks with something on them, written to files: file systems, partition tables, beginnings of other things."""

from __future__ import annotations

import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

MIB = 1024 * 1024
SMALLEST = {"ext4": 16, "ext2": 16, "xfs": 304, "btrfs": 128, "vfat": 64, "swap": 16}  # MiB
_LUKS = struct.Struct(">6sH32s32s32sII20s32sI40s")  # version 1, up to its UUID


def make(file: Path, kind: str, *, label: str = "", tree: Path | None = None, mib: int = 0) -> None:
    """A file system in `file`, of `mib` MiB or as small as it can be; ext4 and btrfs may hold a copy of `tree`."""
    with file.open("ab") as opened:
        opened.truncate((mib or SMALLEST[kind]) * MIB)
    run(_command(file, kind, label, tree))


def _command(file: Path, kind: str, label: str, tree: Path | None) -> list[str]:
    match kind:
        case "ext4" | "ext2":
            return ["mke2fs", "-q", "-F", "-t", kind, "-L", label, *(["-d", str(tree)] if tree else []), str(file)]
        case "btrfs":
            return ["mkfs.btrfs", "-q", "-f", "-L", label, *(["--rootdir", str(tree)] if tree else []), str(file)]
        case "xfs":
            return ["mkfs.xfs", "-q", "-f", *(["-L", label] if label else []), str(file)]
        case "vfat":
            return ["mkfs.vfat", *(["-n", label] if label else []), str(file)]
        case "swap":
            return ["mkswap", *(["-L", label] if label else []), str(file)]
    raise AssertionError(kind)


def make_luks(file: Path) -> None:
    """The beginning of an encrypted disk."""
    identity = str(uuid.uuid4()).encode()
    head = _LUKS.pack(b"LUKS\xba\xbe", 1, b"aes", b"xts", b"sha256", 4096, 64, b"", b"", 1000, identity)
    with file.open("r+b") as opened:
        opened.write(head)


def partition(file: Path, starts: Sequence[tuple[int, int]]) -> None:
    """Write a partition table in the oldest format; `starts` are first MiB and number of MiB of up to four."""
    entries = [
        struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", first * MIB // 512, size * MIB // 512)
        for first, size in starts
    ]
    with file.open("r+b") as opened:
        opened.seek(446)
        opened.write(b"".join(entries).ljust(64, b"\0") + b"\x55\xaa")


def run(argv: Sequence[str]) -> None:
    subprocess.run(list(argv), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def write_into(file: Path, source: Path, *, at: int) -> None:
    """Copy the file `source` into `file` from its byte `at` on."""
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(source.read_bytes())
