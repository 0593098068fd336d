"""Locks of files, as flock(2) has them: one ends with the process that holds it, so none is left of a killed one."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def open_locked(directory: Path, how: int = fcntl.LOCK_EX) -> int:
    """A descriptor of `directory`, with a lock that ends when it is closed. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Returns whether it has the lock now; False: somebody else has. Raises OSError."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
