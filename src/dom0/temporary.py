"""Temporary directories, all below one: the next process removes what a killed one left.

A directory is held by a lock on itself, which ends with its process. One that is held is never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dom0 import flock
from dom0.errors import Dom0Error

LARGE = Path("/var/tmp")  # noqa: S108 -- for files as large as a base OS: on a disk, where /tmp may be memory


@contextlib.contextmanager
def directory(what: str, below: Path | None = None) -> Iterator[Path]:
    """A fresh directory during the block; `what` is the beginning of its name, `below` LARGE or where TMPDIR says."""
    top = Path(below or tempfile.gettempdir(), f"dom0-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        top.mkdir(mode=0o700)
    found = top.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise Dom0Error(f"{top}: is not a directory of ours alone", hint="move it away, or name another one: TMPDIR=…")
    locked = flock.open_locked(top)  # keeps others from sweeping what is made but not yet held
    try:
        os.fchmod(locked, 0o711)  # whatever the umask: others may walk through it, apt downloads as a user of its own
        _sweep(top)
        path = Path(tempfile.mkdtemp(prefix=f"{what}-", dir=top))
        held = flock.open_locked(path)
    finally:
        os.close(locked)
    try:
        yield path
    finally:
        _remove(path)
        os.close(held)


def _sweep(top: Path) -> None:
    for path in top.iterdir():
        try:
            held = flock.open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by its process, or not ours
            continue
        _remove(path)
        os.close(held)


def _remove(path: Path) -> None:
    """A project may have directories that even their owner may not write in."""
    for parent, names, _ in os.walk(path):
        for inner in (Path(parent, name) for name in names):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
