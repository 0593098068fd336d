"""One blob that is being fetched, on disk. Nothing here knows where its bytes come from.

Theory of operation: its directory holds parts, files named by the byte of the blob where they begin (`part`). The
kernel's boot ID in the journal of each tells a kill, after which all that was written is there, from a power cut,
after which what is no whole chunk may be anything: that is cut off, and the rest is compared with its CRCs. What is no
part of this blob is removed, whatever it is.

When nothing is missing the first part takes in the others, whose space is released chunk by chunk as soon as the first
one's chunk is synced: the blob is never on the disk one and a half times. It is renamed to the blob if its digest is
right, never linked: of a link, the name can survive a power cut that the length of the file does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from dom0.durable import writing
from dom0.names import BOOT_ID
from dom0.registry.journal import CHUNK, JournalHead
from dom0.registry.part import JOURNAL, Damage, Part, read_head

MOST_PARTS = 1024
BLOB, LOCK, UNFINISHED, PUBLIC = "blob", "lock", "unfinished", "public"  # what else is in its directory
UPSTREAM = "upstream"  # as well: the process that fetches it asks the registry
FIRST = "0"  # the part that becomes the blob
START = re.compile(r"0|[1-9][0-9]{0,18}")  # what a part is called

Ending = Literal["done", "damaged", "wrong"]


class Stopped(Exception):
    """As it was asked to; it can go on from there."""


class Partial:
    """`directory` is there, and nobody else writes in it. Raises Unwritable."""

    def __init__(self, directory: Path, sha256: bytes, size: int, *, boot: bytes | None = None) -> None:
        self.size = size
        self._directory = directory
        self._head = JournalHead(boot or boot_id(), sha256, size, 0)
        with writing(directory):
            self.parts = self._restored()

    @property
    def have(self) -> int:
        """Bytes that need not come any more."""
        return sum(min(part.at, self.stop(part)) - part.start for part in self.parts)

    def stop(self, part: Part) -> int:
        """The byte of the blob where `part` need not grow any further."""
        return min((other.start for other in self.parts if other.start > part.start), default=self.size)

    @property
    def is_whole(self) -> bool:
        return all(part.at >= self.stop(part) for part in self.parts)

    def find(self, start: int) -> Part:
        """The part that begins at byte `start` of the blob; a new one, if there is none."""
        for part in self.parts:
            if part.start == start:
                return part
        return self._add(start)

    def put(self, at: int, data: bytes) -> int:
        """Bytes of the blob from `at` on: what is missing of them is written. Returns how many that were."""
        written = 0
        with writing(self._directory):
            for part in self.parts:
                stop = self.stop(part)
                if at <= part.at < min(at + len(data), stop):
                    piece = data[part.at - at : stop - at]
                    part.append(piece)
                    written += len(piece)
        return written

    def finish(self, blob: Path, stop: threading.Event) -> Ending:
        """Once it is whole. "done": it is `blob`, and no part any more. "damaged": what the disk did not keep is
        missing again. "wrong": something else came. Raises Stopped when `stop` is set.
        """
        digest = hashlib.sha256()
        with writing(self._directory):
            first, *others = self.parts
            try:
                for data in first.read():
                    if stop.is_set():
                        raise Stopped
                    digest.update(data)
            except Damage:
                first.cut_damage()
                return "damaged"
            for other in others:
                try:
                    for data in other.read(first.at):
                        if stop.is_set():
                            raise Stopped
                        first.append(data)
                        digest.update(data)
                        if other.start < first.at < other.at:
                            other.release(first.at)
                except Damage:
                    other.cut_damage()
                    return "damaged"
                first.sync()
                self._remove(other)
            if digest.digest() != self._head.sha256:
                return "wrong"
            first.rename(blob)
        return "done"

    def forget(self, wrong: Sequence[tuple[int, int]] = ()) -> None:
        """All that came; or of all of the blob these stretches [start, stop), with the chunks that they are in."""
        chunks = {number for start, stop in wrong for number in range(start // CHUNK, -(-stop // CHUNK))}
        with writing(self._directory):
            if not chunks or len(self.parts) > 1:
                for part in tuple(self.parts):
                    self._remove(part)
                self._add(0)
                return
            (whole,) = self.parts
            with contextlib.suppress(Damage):
                for start, stop in _runs(chunks, self.size):
                    if start:
                        self._copy(whole, start, stop)
            whole.cut(min(chunks) * CHUNK)

    def _copy(self, whole: Part, start: int, stop: int) -> None:
        part = self._add(start)
        for data in whole.read(start):
            part.append(data[: stop - part.at])
            if part.at >= stop:
                return

    def close(self) -> None:
        """Waits for threads that write."""
        for part in self.parts:
            part.close()

    def _restored(self) -> list[Part]:
        found = {path.name: path for path in self._directory.iterdir()}
        numbers = [int(name) for name in found if START.fullmatch(name)]
        starts = sorted(number for number in numbers if number % CHUNK == 0 and (number == 0 or number < self.size))
        with contextlib.ExitStack() as opened:
            parts: list[Part] = []
            for part in map(self._part, starts[:MOST_PARTS]):
                opened.callback(part.close)
                taken = max((other.at for other in parts), default=-1)
                if part.restore(taken) and part.at > taken:
                    parts.append(part)
                else:
                    part.close()
            for path in (*(part.path for part in parts), *(part.journal_path for part in parts)):
                found.pop(path.name, None)
            for path in found.values():
                if path.name not in (BLOB, LOCK, UNFINISHED, PUBLIC):
                    _remove(path)
            opened.pop_all()
        return parts if parts and parts[0].start == 0 else [self._part(0), *parts]

    def _part(self, start: int) -> Part:
        return Part(self._directory, replace(self._head, start=start))

    def _add(self, start: int) -> Part:
        """Its files are made with its first byte."""
        part = self._part(start)
        self.parts = sorted((*self.parts, part), key=lambda part: part.start)
        return part

    def _remove(self, part: Part) -> None:
        part.remove()
        self.parts = [each for each in self.parts if each is not part]  # others may be looking through the old list


def _runs(chunks: Collection[int], size: int) -> Iterator[tuple[int, int]]:
    """The stretches of whole chunks between those."""
    start = 0
    for number in (*sorted(chunks), -(-size // CHUNK)):
        if start < number * CHUNK:
            yield start, min(size, number * CHUNK)
        start = (number + 1) * CHUNK


def boot_id() -> bytes:
    return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))


def peek(directory: Path) -> tuple[int | None, int]:
    """Bytes that the blob has, if a journal says so, and bytes of it that are there. Raises OSError."""
    lengths = {int(path.name): path.lstat().st_size for path in directory.iterdir() if START.fullmatch(path.name)}
    heads = (read_head(directory / f"{start}{JOURNAL}") for start in lengths)
    size = next((head.size for head in heads if head), None)
    starts = sorted(lengths)
    stops = (*starts[1:], size or sum(lengths.values()))
    return size, sum(min(lengths[start], max(0, stop - start)) for start, stop in zip(starts, stops, strict=False))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
