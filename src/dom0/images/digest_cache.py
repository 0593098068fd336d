"""A digest of many files, remembered by their inodes, sizes and times, as git's index has them: none of them has to be
read to see that none has changed.

What is written to a file in the tick of the clock in which it was read leaves all of that as it is. So nothing is
remembered before the youngest file has rested, and nothing that is found is used unless it is whole and nobody else's.
Else the files are read, which only takes longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from dom0.durable import Unwritable, write_atomic
from dom0.images.contents import TreeEntry

RESTED = 3 * 10**9  # nanoseconds; file systems write down times to two seconds at worst
_LONGEST = 1024  # bytes of what is remembered


def remembered(path: Path, files: Iterable[TreeEntry], compute: Callable[[], str], *, text: str, now: int) -> str:
    """What `compute` makes of `files` and `text`, or the same from `path`. `now`: nanoseconds, before it reads them."""
    seen = [_seen(entry) for entry in files]
    key = hashlib.sha256(repr((text, seen)).encode(errors="surrogateescape")).hexdigest()
    if found := _read(path, key):
        return found
    made = compute()
    if max((changed for *_, changed in seen), default=0) < now - RESTED:
        with contextlib.suppress(Unwritable):
            write_atomic(path, _sealed(key, made), durable=False)
    return made


def _seen(entry: TreeEntry) -> tuple[str, int, int, int, int, int, int]:
    """What stays the same while its content does, the time of the last change at the end. Byte code comes and goes in
    directories, of which only the permissions count.
    """
    found = entry.found
    if entry.kind == "directory":
        return entry.path, found.st_mode, 0, 0, 0, 0, 0
    times = found.st_mtime_ns, found.st_ctime_ns
    return entry.path, found.st_mode, found.st_dev, found.st_ino, found.st_size, *times


def _sealed(key: str, digest: str) -> bytes:
    line = f"{key} {digest}"
    return f"{line} {hashlib.sha256(line.encode()).hexdigest()}\n".encode()


def _read(path: Path, key: str) -> str:
    """What is remembered of `key`, else ""."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
            content = os.read(descriptor, _LONGEST) if is_ours else b""
        finally:
            os.close(descriptor)
        digest = content.decode().split(" ")[1]
    except (OSError, ValueError, IndexError):
        return ""
    return digest if content == _sealed(key, digest) else ""
