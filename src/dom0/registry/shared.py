"""What a depot may give to others: blobs that came without a login, or all of them, also while they come.

Only reads, beside the processes that fetch, which know nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from dom0.registry.depot import Depot
from dom0.registry.part import JOURNAL, read_head
from dom0.registry.partial import BLOB, LOCK, PUBLIC, START, UPSTREAM, boot_id

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TRIES = 3  # a blob can become whole, and its parts one, while it is looked at

Coming = Literal["whole", "upstream", "wanted", "left"]


class Share(msgspec.Struct, frozen=True):
    """`have` of its `size` bytes are here; `ready` of those follow the byte that was asked about.

    `coming`: "upstream": a process asks the registry for the rest; "wanted": one waits for it; "left": none does.
    """

    coming: Coming
    size: int | None  # None: nothing has come that would say it
    have: int
    ready: int


class _Piece(msgspec.Struct, frozen=True):
    """A file that has bytes of the blob from `start` to `stop`."""

    path: Path
    start: int
    stop: int
    size: int  # of the blob


def share(depot: Depot, digest: str, at: int, *, only_public: bool = True) -> Share | None:
    """None: it is not here, or not for others. Raises OSError, and ValueError for what is no digest."""
    directory = depot.path(digest).parent
    for _ in range(_TRIES):
        if only_public and not (directory / PUBLIC).exists():
            return None
        coming, pieces = _coming(directory), _pieces(directory)
        if pieces and pieces[0].path.name == BLOB:
            return Share("whole", pieces[0].size, pieces[0].size, max(0, pieces[0].size - at))
        if pieces or coming == "wanted":
            stops = (*(each.start for each in pieces[1:]), pieces[-1].stop if pieces else 0)
            have = sum(max(0, min(each.stop, stop) - each.start) for each, stop in zip(pieces, stops, strict=False))
            ready = next((each.stop - at for each in pieces if each.start <= at < each.stop), 0)
            return Share(coming, pieces[0].size if pieces else None, have, ready)
    return None


def read(depot: Depot, digest: str, at: int, count: int, *, only_public: bool = True) -> bytes:
    """Bytes of the blob from `at` on, at most so many; fewer where no more are here. Raises as `share`."""
    directory = depot.path(digest).parent
    for _ in range(_TRIES):
        found = _covering(directory, at) if not only_public or (directory / PUBLIC).exists() else None
        if found is None:
            continue
        with contextlib.suppress(FileNotFoundError), _opened(found.path) as file:
            data = os.pread(file, min(count, found.stop - at), at - found.start)
            # The first part takes in the others, and a hole is left of what it has of them.
            now = _covering(directory, at)
            # And somebody may go on with a login.
            is_still_public = not only_public or (directory / PUBLIC).exists()
            if data and now is not None and now.start == found.start and is_still_public:
                return data
    return b""


def _covering(directory: Path, at: int) -> _Piece | None:
    return next((each for each in _pieces(directory) if each.start <= at < each.stop), None)


def _pieces(directory: Path) -> list[_Piece]:
    """In the order of their starts. The whole blob is one."""
    with contextlib.suppress(FileNotFoundError):
        found = (directory / BLOB).lstat()
        return [_Piece(directory / BLOB, 0, found.st_size, found.st_size)] if stat.S_ISREG(found.st_mode) else []
    boot, pieces = boot_id(), list[_Piece]()
    with contextlib.suppress(FileNotFoundError):
        for start in sorted(int(path.name) for path in directory.iterdir() if START.fullmatch(path.name)):
            path = directory / str(start)
            head = read_head(path.with_suffix(JOURNAL))
            # What is left of before a power cut nobody has looked at yet.
            if head is not None and (head.boot, head.start) == (boot, start):
                pieces.append(_Piece(path, start, min(start + path.lstat().st_size, head.size), head.size))
    return pieces


def _coming(directory: Path) -> Coming:
    with contextlib.suppress(FileNotFoundError), _opened(directory / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "upstream" if (directory / UPSTREAM).exists() else "wanted"
    return "left"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
