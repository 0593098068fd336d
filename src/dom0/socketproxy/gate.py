"""While a scope is stopped nothing is made or started in it, whoever serves its socket: two locks in its directory.

    stopping   held by who stops it; as long as it is, requests that make or start something are refused
    making     shared by those that are under way; who stops waits until they are answered

A lock ends with the process that holds it, so nothing is left of one that was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dom0.errors import Busy
from dom0.socketproxy import registry
from dom0.socketproxy.refusal import UNAVAILABLE, Refused

PATIENCE = 60.0  # seconds, for requests that are under way


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
        if not _locked(made, fcntl.LOCK_SH) or _is_stopped(scope):
            raise Refused(UNAVAILABLE, f"scope /{scope} is being stopped: nothing is made or started in it meanwhile")
        yield
    finally:
        os.close(made)


def _is_stopped(scope: str) -> bool:
    descriptor = _open(scope, "stopping")
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextmanager
def stopping(scope: str) -> Iterator[None]:
    """Blocks until what is under way is answered. Raises Busy if somebody else stops it, OSError."""
    stopped = _open(scope, "stopping")
    try:
        _wait_for(stopped, f"{scope}: another process stops it")
        made = _open(scope, "making")
        try:
            _wait_for(made, f"{scope}: a request does not end")
        finally:
            os.close(made)
        yield
    finally:
        os.close(stopped)


def _open(scope: str, name: str) -> int:
    directory = registry.directory_of(scope)
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for(descriptor: int, otherwise: str) -> None:
    """Have the lock alone. Raises Busy."""
    deadline = time.monotonic() + PATIENCE
    while not _locked(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise Busy(otherwise, hint="try it again; a server that hangs: dom0 socket show NAME")
        time.sleep(0.02)
