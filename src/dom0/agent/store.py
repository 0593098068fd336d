"""The agent's files, as JSON, and the lock that lets only one agent write them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0 import flock
from dom0.durable import write_atomic, writing
from dom0.errors import Busy, Dom0Error

T = TypeVar("T")
LOCK_AGAIN = 0.05  # seconds between attempts to be alone


class Damaged(Dom0Error):
    """A file of ours is not what we wrote."""


class Unreadable(Damaged):
    """The system cannot read it just now: it may be as we wrote it."""


class Forbidden(Unreadable):
    """None but root gets into the state directory."""


@contextlib.contextmanager
def exclusive_lock(directory: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Be the only agent that works in `directory`; a kill ends that too.

    Raises Busy when another one does not end within `patience` seconds, Unwritable. Only root gets into the directory:
    what containers need of it is bound. (The Engine makes it 0755 where it creates it for a bind.)
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + patience
    try:
        while not flock.try_lock(descriptor):
            if time.monotonic() >= deadline:
                hint = "two of them would undo each other's work: docker ps --filter label=dom0.role=root; lslocks"
                raise Busy(f"{directory}: another dom0 agent works with it", hint=hint)
            time.sleep(LOCK_AGAIN)
        with contextlib.suppress(OSError):  # a disk that cannot be written is told when it has to be
            os.fchmod(descriptor, 0o700)
        yield
    finally:
        os.close(descriptor)


def read_json(path: Path, type_: type[T]) -> T | None:
    """None when there is no such file. Raises Damaged when it is not what we wrote, Unreadable, Forbidden."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise Forbidden(f"{path}: permission denied", hint="run it as root") from error
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror}", hint="if it is the disk: dmesg") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"{path}: is damaged: {error}", hint=f"move it away: mv {path} {path}.damaged") from error


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    write_atomic(path, msgspec.json.encode(value), durable=durable)
