"""A file that grows at its end with bytes of a blob, and the journal beside it. Everything here may wait for the disk.

At each whole chunk it waits for the disk before it grows on, and notes the chunk's CRC. So a kill loses nothing that
was written, and a power cut at most the last chunk.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from dom0.durable import sync
from dom0.registry import journal
from dom0.registry.journal import CHUNK, JournalHead

JOURNAL = ".journal"
_SYNCED = 16  # chunks after which the journal waits for the disk too; till then a chunk behind it vouches for this one
_PUNCH_HOLE = 0x03  # and keep the file's length; <linux/falloc.h>
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # whatever lies there: it neither leads elsewhere nor waits


class Damage(Exception):
    """A chunk is not what its CRC says."""


class Part:
    """Bytes of the blob from `start` on. Its file begins at `head.start` and has `size` bytes; those between were
    released. Raises OSError of the disk.

    `asked`: where the request ends that is running for it, a byte of the blob; None: there is none.
    """

    def __init__(self, directory: Path, head: JournalHead) -> None:
        self.head = head
        self.start = head.start
        self.size = 0
        self.asked: int | None = None
        self.path = directory / str(head.start)
        self.journal_path = directory / f"{head.start}{JOURNAL}"
        self._lock = threading.Lock()  # nothing is closed while a thread writes to it
        self._file = self._journal = -1
        self._crcs: list[int] = []
        self._crc = 0  # of what is behind the last whole chunk

    @property
    def at(self) -> int:
        """The byte of the blob that comes next."""
        return self.head.start + self.size

    def restore(self, taken: int) -> bool:
        """Take up what an earlier process left. Another part has the blob up to byte `taken`: what this one had of it
        may be released. False: there is nothing that can be believed.
        """
        found = journal.decode(_read(self.journal_path, journal.longest(self.head)))
        if found is None or found[0] != JournalHead(found[0].boot, self.head.sha256, self.head.size, self.head.start):
            return False
        left, crcs = found
        self._file = _open_regular(self.path, os.O_RDWR)
        length = os.fstat(self._file).st_size if self._file >= 0 else 0
        if self._file < 0 or length > self.head.size - self.head.start:
            return False
        same_boot = left.boot == self.head.boot
        self.size = length if same_boot else length - length % CHUNK
        wholes = itertools.zip_longest(range(self.size // CHUNK), crcs[: self.size // CHUNK])
        self.start += min(max(0, taken - self.start), self.size) // CHUNK * CHUNK
        # Where an entry of the journal is lost, of what is on the disk: all chunks but the last were synced before the
        # file grew on. The last one is taken as well, because ext4 and xfs write data before they extend the file's
        # size; if it is wrong nevertheless, the blob's digest does not match.
        self._crcs = [self._crc_at(number * CHUNK) if crc is None else crc for number, crc in wholes]
        if not same_boot:
            self.cut_damage()
        # What was cut off is gone for good before the journal says that it is of this boot.
        os.ftruncate(self._file, self.size)
        os.fsync(self._file)
        self._crc = self._crc_at(self.size - self.size % CHUNK)
        self._write_journal()
        return True

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        with self._lock:
            if self._file < 0:
                self._create()
            while view:
                written = os.pwrite(self._file, view[: CHUNK - self.size % CHUNK], self.size)
                self._crc = zlib.crc32(view[:written], self._crc)
                self.size += written
                view = view[written:]
                if self.size % CHUNK == 0:
                    os.fdatasync(self._file)
                    os.pwrite(self._journal, *journal.entry(len(self._crcs), self._crc))
                    self._crcs.append(self._crc)
                    self._crc = 0
                    if len(self._crcs) % _SYNCED == 0:
                        os.fdatasync(self._journal)

    def read(self, at: int = 0) -> Iterator[bytes]:
        """What is there from byte `at` of the blob on, by chunks. Raises Damage before one that is not sound."""
        offset = max(at, self.start) - self.head.start
        for number in range(offset // CHUNK, -(-self.size // CHUNK)):
            data = os.pread(self._file, min(CHUNK, self.size - number * CHUNK), number * CHUNK)
            if zlib.crc32(data) != (self._crcs[number] if number < len(self._crcs) else self._crc):
                raise Damage
            yield data[max(0, offset - number * CHUNK) :]

    def cut_damage(self) -> None:
        """Leave what is before the first chunk that is not what its CRC says."""
        sound = self.start - self.head.start
        try:
            for data in self.read():
                sound += len(data)
        except Damage:
            sound -= sound % CHUNK
            self.cut(sound)

    def cut(self, size: int) -> None:
        """Leave only the first `size` bytes, whole chunks."""
        del self._crcs[size // CHUNK :]
        self.size, self._crc = size, 0
        if self._file >= 0:
            os.ftruncate(self._file, size)
        if self._journal >= 0:
            os.ftruncate(self._journal, journal.entry(size // CHUNK, 0)[1])

    def release(self, stop: int) -> None:
        """Give back the space of what is before byte `stop` of the blob, the end of a chunk, if the file system can."""
        import ctypes  # only where a blob has come in parts

        libc, at = ctypes.CDLL(None, use_errno=True), ctypes.c_int64(self.start - self.head.start)
        fallocate = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate  # musl has one only
        if fallocate(self._file, _PUNCH_HOLE, at, ctypes.c_int64(stop - self.start)):
            number = ctypes.get_errno()
            if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(number, os.strerror(number))
        self.start = stop

    def sync(self) -> None:
        if self._file >= 0:
            os.fsync(self._file)

    def rename(self, target: Path) -> None:
        """Become `target`, whatever was there, and be closed."""
        if self._file < 0:
            self._create()
        self.sync()
        self.path.replace(target)
        sync(target.parent)
        self.remove()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            for file in (self._file, self._journal):
                if file >= 0:
                    os.close(file)
            self._file = self._journal = -1

    def _crc_at(self, offset: int) -> int:
        return zlib.crc32(os.pread(self._file, CHUNK, offset))

    def _create(self) -> None:
        """The names survive a power cut before the first byte is there."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
        self._file = os.open(self.path, flags, 0o600)
        self._write_journal()

    def _write_journal(self) -> None:
        fresh = self.journal_path.with_suffix(".new")
        self._journal = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        os.write(self._journal, journal.encode(self.head, self._crcs))
        os.fsync(self._journal)
        fresh.replace(self.journal_path)
        sync(self.path.parent)


def read_head(path: Path) -> JournalHead | None:
    """What the journal at `path` says first; None if it is none."""
    found = journal.decode(_read(path, journal.FIRST))
    return found[0] if found else None


def _open_regular(path: Path, flags: int) -> int:
    """-1 if it is no file of its own."""
    try:
        descriptor = os.open(path, flags | _FLAGS)
    except OSError:
        return -1
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    return -1


def _read(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file; nothing if it is none."""
    descriptor = _open_regular(path, os.O_RDONLY)
    if descriptor < 0:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most)
