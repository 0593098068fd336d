"""What commands pull, for `dom0 status` in another terminal: there may be no agent yet that knows.

Each process has a file that it holds a lock of, which ends with it, and beside that what it says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dom0.agent.status import PullStatus
from dom0.durable import Unwritable, write_atomic
from dom0.flock import open_locked, try_lock
from dom0.names import pull_directory

if TYPE_CHECKING:
    from dom0.agent.pull import Audience

_SAID = ".json"


class Heard:
    """An audience whose pulls others hear of, too."""

    def __init__(self, audience: Audience, tell: Callable[[tuple[PullStatus, ...]], None]) -> None:
        self.say = audience.say
        self.note = audience.note
        self._show = audience.show
        self._tell = tell

    def show(self, pulls: tuple[PullStatus, ...]) -> None:
        self._show(pulls)
        self._tell(pulls)


@contextlib.contextmanager
def announcing() -> Iterator[Callable[[tuple[PullStatus, ...]], None]]:
    """Others hear of what it is told, as long as the block lasts. Where nothing can be written nobody does."""
    said: Path | None = None
    with contextlib.ExitStack() as stack:

        def tell(pulls: tuple[PullStatus, ...]) -> None:
            nonlocal said
            with contextlib.suppress(OSError, Unwritable):
                if pulls and said is None:
                    said = Path(f"{stack.enter_context(_held_file())}{_SAID}")
                    stack.callback(said.unlink, missing_ok=True)
                if said is not None:
                    write_atomic(said, msgspec.json.encode(pulls), durable=False)

        yield tell


@contextlib.contextmanager
def _held_file() -> Iterator[str]:
    """Nobody takes it for that of a dead process before it is locked. Raises OSError."""
    directory = _directory()
    directory.parent.parent.mkdir(parents=True, exist_ok=True)
    for path in (directory.parent, directory):
        path.mkdir(mode=0o700, exist_ok=True)
    held = open_locked(directory)
    try:
        file = tempfile.NamedTemporaryFile(dir=directory)  # noqa: SIM115 -- closed below
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    finally:
        os.close(held)
    with file:
        yield file.name


def announced() -> tuple[PullStatus, ...]:
    """Of processes that live; what is left of others is removed."""
    found: list[PullStatus] = []
    directory = _directory()
    with contextlib.suppress(OSError):
        held = open_locked(directory)
        try:
            for path in sorted(directory.iterdir()):
                file = directory / path.name.removeprefix(".").removesuffix(".new").removesuffix(_SAID)
                with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                    if not _is_held(file):
                        path.unlink()
                    elif path.name == f"{file.name}{_SAID}":
                        found += msgspec.json.decode(path.read_bytes(), type=list[PullStatus])
        finally:
            os.close(held)
    return tuple(found)


def _is_held(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _directory() -> Path:
    return pull_directory() / "commands"
