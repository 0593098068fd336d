"""The boot record: the stages of a boot, and when they ended. docs/boot.md says which program writes which line.

One line for each mark, `SECONDS<tab>STAGE<tab>TEXT`: the stage ended at SECONDS of the kernel's boot clock. Programs of
the host and the agent append lines to the record of the running boot; copies of earlier boots are on the data disk.
Anybody with root may have written a record, and a power cut may have truncated it: only whole lines of the right form
count, and their content is untrusted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

RUNNING = "boot.record"  # below /run/dom0: of the boot that the machine is in
KEPT = "boot"  # below /var/lib/dom0: the directory of NNNN.record; for logins also below /run/dom0
FIRMWARE = "firmware"  # the only stage whose mark is of its beginning: when the machine was switched on
LONGEST_TEXT = 200  # characters of a line that are kept
_LARGEST = 256 * 1024  # bytes of a record that are read
_KEPT_NAME = re.compile(r"(?P<number>\d{4,9})\.record", re.ASCII)
_LINE = re.compile(
    r"(?P<at>-?\d{1,7}(?:\.\d{1,9})?)\t(?P<stage>[a-z][a-z0-9-]{0,31}(?::[A-Za-z0-9][A-Za-z0-9_.-]{0,127})?)(?:\t(?P<text>.*))?",
    re.ASCII,
)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """`stage` ended `at` seconds after the kernel's boot clock began; negative before it."""

    at: float
    stage: str  # kernel, engine, …, `service:NAME`
    text: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`number` counts the boots of this machine from 1, 0 if unknown; `written` is the time of its last line."""

    marks: tuple[Mark, ...]
    number: int = 0
    running: bool = False  # of the boot that the machine is in
    written: float = 0.0  # seconds since the epoch
    unreadable: int = 0  # lines of another form


def line(mark: Mark) -> str:
    """A mark as a line of a record, with its line break."""
    text = " ".join(mark.text.split())[:LONGEST_TEXT]
    return f"{mark.at:.2f}\t{mark.stage}\t{text}\n"


def append(path: Path, marks: Iterable[Mark]) -> None:
    """Append to an existing record. A truncated last line is made invalid, not continued. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        cut_off = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, ("?\n" * cut_off + "".join(line(mark) for mark in marks)).encode())
    finally:
        os.close(descriptor)


def parse(content: bytes) -> tuple[tuple[Mark, ...], int]:
    """The marks in the order of their times, and the number of other lines; without a truncated last line."""
    whole, _, _ = content.rpartition(b"\n")
    lines = whole.decode(errors="replace").split("\n") if whole else []
    marks = [
        Mark(at=float(match["at"]), stage=match["stage"], text=(match["text"] or "")[:LONGEST_TEXT])
        for match in map(_LINE.fullmatch, lines)
        if match and (match["stage"] == FIRMWARE or not match["at"].startswith("-"))
    ]
    return tuple(sorted(marks, key=lambda mark: mark.at)), len(lines) - len(marks)


def read(path: Path, *, number: int = 0, running: bool = False) -> Record | None:
    """None if it does not exist, or is no regular file. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # the second: a symbolic link
            return None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        marks, unreadable = parse(os.read(descriptor, _LARGEST))
    finally:
        os.close(descriptor)
    return Record(marks=marks, number=number, running=running, written=found.st_mtime, unreadable=unreadable)


def read_all(run: Path, state: Path) -> tuple[Record, ...]:
    """Of this machine, oldest first, the running boot last. Raises OSError."""
    kept = list(_read_kept(state / KEPT)) or list(_read_kept(run / KEPT))
    running = read(run / RUNNING, running=True)
    if running is None or not running.marks:
        return tuple(kept)
    number = kept[-1].number + 1 if kept else 1
    # Its copy may be older; no two boots have the same times to the hundredth of a second.
    if kept and set(kept[-1].marks) <= set(running.marks):
        number = kept.pop().number
    return (*kept, msgspec.structs.replace(running, number=number))


def _read_kept(directory: Path) -> Iterator[Record]:
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    numbered = ((int(match["number"]), match[0]) for name in names if (match := _KEPT_NAME.fullmatch(name)))
    for number, name in sorted(numbered):
        record = read(directory / name, number=number)
        if record is not None and record.marks:
            yield record
