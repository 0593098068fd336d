"""The journal on the disk: what was done to this machine, why and by whom, one JSON a line. No asyncio.

Theory of operation. The lines are in segments, `<state>/events/NNNNNNNN-BOOT.ndjson`, which are appended to and, the
oldest first, removed whole. Nothing here waits for the disk: a line survives a kill as soon as it is written, and a
power cut some seconds later. Numbers never go back all the same: segment N has those from N * SPAN + 1 on, and each
boot begins another one. Only the name of a segment has to be on the disk before a number in it is told to anybody:
readers ensure that. Else the boot after a power cut could use the same numbers again, and whoever asks for newer
entries would miss them.

Only one agent writes its state (store.exclusive_lock), but `dom0 down` writes here too when the agent has ended: each
write holds a lock, and checks whether somebody has written since the last one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.events import LONGEST_NAME, Bursts, Entry, Kind, actor, clip
from dom0.durable import Unwritable, sync, writing
from dom0.flock import try_lock
from dom0.names import BOOT_ID

log = logging.getLogger(__name__)

EVENTS = "events"  # the directory, in that of the state
SPAN = 4096  # numbers of a segment
SEGMENT = 512 * 1024  # bytes of one, about
MOST = 8 * SEGMENT  # of all together
MOST_SEGMENTS = 256  # a machine that boots in a loop makes small ones
LOSSES = 2  # entries that one write may add to what waits
MOST_WAITING = 256  # entries that could not be written yet
TAIL = 64 * 1024  # bytes at the end of a segment, of which one line is a part
_NAME = re.compile(r"(\d{8})-([0-9a-f]{8})\.ndjson")


class _Segment(msgspec.Struct):
    """The one that is written to. `seq`: the last number in it; `size`: bytes up to there."""

    name: str
    descriptor: int
    size: int
    seq: int
    rest: bytes  # of a last line without an end

    @property
    def room(self) -> int:
        """How many entries it takes, besides what is said of losses."""
        return max(0, _first(self.name) + SPAN - LOSSES - self.seq) if self.size < SEGMENT else 0


class Journal:
    """`boot`: eight hex digits, another in each boot."""

    def __init__(self, state: Path, *, now: Callable[[], float], boot: str | None = None) -> None:
        self.generation = 0  # number of the current one
        # How often, by kind, since the agent has started. What begins with 1 has not grown, for who sees it first then.
        self.noted = Counter(dict.fromkeys(map(str, Kind), 0))
        self.unwritten: Unwritable | None = None  # why entries wait
        self.last = 0  # the greatest number that was written
        self.is_of_another_boot = True  # what was written before us
        self.told: Callable[[], None] = lambda: None  # called when there is something new to read
        self.directory = state / EVENTS
        self._now = now
        self._boot = boot or BOOT_ID.read_text()[:8]
        self._bursts = Bursts()
        self._waiting: deque[Entry] = deque()
        self._lost = 0  # entries for which there was no room to wait
        self._at: int | None = None  # descriptor of the directory, where the lock is
        self._segment: _Segment | None = None
        self._synced = ""  # a segment whose name is on the disk
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # where the writer before us has stopped
            at = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, at)
            for newest in _segments(at)[-1:]:
                segment = _open(at, newest, os.O_RDONLY)
                os.close(segment.descriptor)
                self.last = segment.seq
                self.is_of_another_boot = not newest.endswith(f"-{self._boot}.ndjson")

    def note(self, kind: str, subject: str, text: str, reason: str = "", *, by: str | None = None) -> None:
        """Waits for nothing, raises nothing. `by`: who did it, where that is not whom this task works for."""
        self.noted[str(kind)] += 1
        entry = Entry(
            time=self._now(),
            kind=kind,
            subject=clip(subject, LONGEST_NAME),
            text=clip(text),
            reason=clip(reason),
            actor=clip(by or actor.get(), LONGEST_NAME),
            generation=self.generation,
        )
        self._write(self._bursts.take(entry))

    def tick(self) -> None:
        """From time to time: write what was counted, and what could not be written."""
        self._write(self._bursts.due(self._now()))

    def close(self) -> None:
        self._write(self._bursts.end())
        self._forget_files()

    def read(self, after: int, most: int) -> list[Entry]:
        """At most so many of those with a number above `after`, the oldest first. Waits for the disk, in a thread.

        Raises OSError.
        """
        return list(islice(self._entries(after), most))

    def read_last(self, after: int, most: int) -> list[Entry]:
        """As `read`, the newest ones."""
        return list(deque(self._entries(after), maxlen=most))

    def _entries(self, after: int) -> Iterator[Entry]:
        segment = self._segment
        newest = segment.name if segment else ""
        if newest != self._synced:
            with contextlib.suppress(OSError):  # tried again with the next page
                sync(self.directory)
                self._synced = newest
        with contextlib.suppress(FileNotFoundError):  # none could be written yet
            yield from read(self.directory, after)

    # writing

    def _write(self, entries: list[Entry]) -> None:
        self._waiting.extend(entries)
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._lost += 1
        if not self._waiting:
            return
        try:
            with writing(self.directory):
                is_written = self._flush()
        except Unwritable as error:
            if self.unwritten is None:
                log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            self.unwritten = error
            self._forget_files()
            return
        if is_written:
            self.unwritten = None
            self.told()

    def _flush(self) -> bool:
        """Write all that waits. Returns whether it was: somebody else may be at it. Raises OSError."""
        if self._at is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._at = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        if not try_lock(self._at):
            return False  # until the next entry, or tick
        try:
            while self._waiting:
                self._write_into(self._open_newest(self._at))
        finally:
            fcntl.flock(self._at, fcntl.LOCK_UN)
        return True

    def _write_into(self, segment: _Segment) -> None:
        """As much as it takes, in one call."""
        losses = []
        if self._lost:
            losses.append(f"{self._lost} entries could not be written, and are lost")
        if segment.rest and not any(_decode([segment.rest])):
            losses.append("the last entry before this one was cut off, and is lost")
        entries = [Entry(time=self._now(), kind=Kind.ENTRIES_LOST, subject="journal", text=text) for text in losses]
        taken = list(islice(self._waiting, segment.room))
        lines = [
            msgspec.json.encode(replace(entry, seq=seq)) + b"\n"
            for seq, entry in enumerate((*entries, *taken), segment.seq + 1)
        ]
        data = (b"\n" if segment.rest else b"") + b"".join(lines)
        if os.write(segment.descriptor, data) < len(data):
            os.ftruncate(segment.descriptor, segment.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for _ in taken:
            self._waiting.popleft()
        self._lost, segment.rest = 0, b""
        segment.size += len(data)
        segment.seq = self.last = segment.seq + len(lines)

    def _open_newest(self, at: int) -> _Segment:
        """One of this boot that has room."""
        names = _segments(at)
        newest, segment = names[-1] if names else "", self._segment
        if segment is None or segment.name != newest or os.fstat(segment.descriptor).st_size != segment.size:
            self._close_segment()
            if newest.endswith(f"-{self._boot}.ndjson"):
                self._segment = _open(at, newest, os.O_RDWR | os.O_APPEND)
        if self._segment is None or not self._segment.room:
            self._close_segment()
            self._make_room(at, names)
            number = max(_first(newest) // SPAN + 1 if newest else 0, (self.last - 1) // SPAN + 1)
            name = f"{number:08}-{self._boot}.ndjson"
            self._segment = _open(at, name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        return self._segment

    def _make_room(self, at: int, names: list[str]) -> None:
        sizes = [os.stat(name, dir_fd=at).st_size for name in names]
        for index, name in enumerate(names):
            if sum(sizes[index:]) + SEGMENT <= MOST and len(names) - index < MOST_SEGMENTS:
                return
            os.unlink(name, dir_fd=at)

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment.descriptor)
            self._segment = None

    def _forget_files(self) -> None:
        self._close_segment()
        if self._at is not None:
            os.close(self._at)
            self._at = None


def _segments(at: int | Path) -> list[str]:
    """Names, the oldest first. Raises OSError."""
    return sorted(filter(_NAME.fullmatch, os.listdir(at)))  # noqa: PTH208 -- pathlib has no descriptors


def _first(name: str) -> int:
    """The number before the first one that is in a segment."""
    return int(name[:8]) * SPAN


def _open(at: int, name: str, flags: int) -> _Segment:
    """Where its end is none of ours, no number is left in it. Raises OSError."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=at)
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, TAIL, max(0, size - TAIL))
    except OSError:  # of a broken disk, with every entry again
        os.close(descriptor)
        raise
    end = _first(name) + SPAN
    last = min(max((entry.seq for entry in _decode(tail.splitlines())), default=end if size else _first(name)), end)
    return _Segment(name, descriptor, size, last, rest=tail.rpartition(b"\n")[2])


# reading


def read(directory: Path, after: int) -> Iterator[Entry]:
    """Those with a number above `after`, the oldest first. Raises OSError."""
    names = _segments(directory)
    is_missing = bool(names) and 0 < after < _first(names[0])
    for name in names:
        if _first(name) + SPAN <= after:
            continue
        try:
            segment = (directory / name).open("rb")
        except FileNotFoundError:  # while we read those before it
            is_missing = True
            continue
        with segment:
            for entry in _decode(segment):
                if not after < entry.seq <= _first(name) + SPAN:
                    continue
                if is_missing:
                    text = "what was noted before this, and after what you have seen, is not kept any more"
                    yield Entry(seq=_first(name), time=entry.time, kind=Kind.ENTRIES_LOST, subject="journal", text=text)
                    is_missing = False
                after = entry.seq
                yield entry


def _decode(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Those that are whole. After a kill or a power cut there may be others."""
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield msgspec.json.decode(line, type=Entry)
