"""Locks of files, as flock(2) has them: one ends with the process that holds it, so none is left of a killed one."""

from __future__ import annotations

import fcntl


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Returns whether it has the lock now; False: somebody else has. Raises OSError."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
