"""While a scope is stopped nothing is made or started in it, whoever serves its socket: two locks in its directory.

    stopping   held by who stops it; as long as it is, requests that make or start something are refused, and those that
               last as long as the client likes are cut off
    making     shared by all of these that are under way; who stops waits for them

A lock ends with the process that holds it, so nothing is left of one that was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dom0 import flock
from dom0.errors import Busy
from dom0.socketproxy import registrations
from dom0.socketproxy.refusal import UNAVAILABLE, Refused

PATIENCE = 60.0  # seconds, for another one who stops it
ANSWERED_WITHIN = 10.0  # seconds, for requests that are under way


@contextmanager
def making(scope: str) -> Iterator[None]:
    """For a request that makes or starts something. Raises Refused while the scope is stopped.

    Who may not write in the directory of the scope, which takes root, does not wait for others and is not waited for.
    """
    try:
        made = _open(scope, "making")
    except OSError:
        yield
        return
    try:
        if not flock.try_lock(made, fcntl.LOCK_SH) or is_stopped(scope):
            raise Refused(UNAVAILABLE, f"scope /{scope} is being stopped: nothing is made or started in it meanwhile")
        yield
    finally:
        os.close(made)


def is_stopped(scope: str) -> bool:
    """Not to who may not write in the directory of the scope."""
    try:
        descriptor = _open(scope, "stopping")
    except OSError:
        return False
    try:
        return not flock.try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextmanager
def stopping(scope: str) -> Iterator[None]:
    """Blocks while somebody else stops it. Raises Busy if that does not end, OSError."""
    stopped = _open(scope, "stopping")
    try:
        if not _locked_alone(stopped, PATIENCE):
            raise Busy(f"{scope}: another process stops it", hint="try it again when that has ended")
        yield
    finally:
        os.close(stopped)


def is_quiet(scope: str) -> bool:
    """Blocks until what is under way is answered; whether it was, within ANSWERED_WITHIN seconds. Raises OSError.

    What a client has made endless, as a restart that waits for a day, is answered when its container is stopped.
    """
    made = _open(scope, "making")
    try:
        return _locked_alone(made, ANSWERED_WITHIN)
    finally:
        os.close(made)


def _open(scope: str, name: str) -> int:
    directory = registrations.directory_of(scope)
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _locked_alone(descriptor: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while not flock.try_lock(descriptor):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
