"""A directory of blobs by digest, whole and partial ones, that processes share and that has a limit.

Theory of operation: each blob has a directory of its own, named by the digits of its digest. In it lies `blob`, or the
parts of it that have come (`partial`). A shared lock on the directory says that its blob is in use; only what is in
use by nobody is evicted. An exclusive lock on the file `lock` in it says who fetches. All locks end with their process.

A file `unfinished` in it says that the pull that needs the blob has not ended well so far: the blob is kept beyond the
limit then, for a while, as what has come of one that is not whole.

A file `public` says that every byte of it came without a login: only that is given to others (`shared`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from dom0 import flock
from dom0.durable import Unwritable, sync, write_atomic, writing
from dom0.errors import Dom0Error
from dom0.registry.partial import BLOB, FIRST, LOCK, PUBLIC, UNFINISHED, UPSTREAM, Partial, peek

RESERVE = 64 << 20  # bytes that stay free on every file system
KEPT_FOR = (
    7 * 86400.0
)  # seconds since its last use, for which what an unfinished pull has fetched is kept beyond the limit
_HEX = re.compile(r"[0-9a-f]{64}")
_PREFIX = "sha256:"
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class NoSpace(Dom0Error):
    """What is to be fetched would fill the disk."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a pull takes: here what is missing; at the Engine its own copy of the blobs, and unpacked layers."""

    depot: int
    engine: int


class StoredBlob(msgspec.Struct, frozen=True, kw_only=True):
    """One blob of the depot. `have` of its `size` bytes are there (None: nothing says how many it has).

    `used`: when it was in use last, seconds since the epoch. `unfinished`: the pull that needs it has not ended well.
    """

    digest: str
    size: int | None
    have: int
    used: float
    unfinished: bool

    @property
    def is_whole(self) -> bool:
        return self.size == self.have


class Depot:
    """`root` is made if it is not there; nobody else gets in. `limit`: bytes that it is to have at most, if it can.
    `boot`: the kernel's boot ID, if this is not to be the running one's.

    Raises Unwritable, and ValueError for what is no digest.
    """

    def __init__(self, root: Path, limit: int, *, boot: bytes | None = None) -> None:
        self.root = root
        self._limit = limit
        self._boot = boot
        with writing(root):
            root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            root.mkdir(mode=0o700, exist_ok=True)
            found = root.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise Unwritable(f"{root}: is not a directory of ours", hint="move it away")
            root.chmod(0o700)

    def path(self, digest: str) -> Path:
        """Where the blob is as soon as it is whole."""
        return self._directory(digest) / BLOB

    def find(self, digest: str, size: int) -> Path | None:
        """The whole blob, which can go unless it is in `use`. None: there is none of that size."""
        path = self.path(digest)
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        return path if stat.S_ISREG(found.st_mode) and found.st_size == size else None

    def read(self, digest: str, at: int, most: int) -> bytes:
        """What is here of it from byte `at` on, also while it comes. Nobody has verified it before all of it is whole.

        Raises OSError.
        """
        for name in (BLOB, FIRST):
            with contextlib.suppress(FileNotFoundError):
                file = os.open(self._directory(digest) / name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
                try:
                    return os.pread(file, most, at)
                finally:
                    os.close(file)
        return b""

    def have(self, digest: str, size: int) -> int:
        """Bytes of a blob of that size that are here, whole or partial, as far as their journals say; none is read."""
        if self.find(digest, size):
            return size
        directory = self._directory(digest)
        with writing(directory):
            try:
                found, have = peek(directory)
            except FileNotFoundError:
                return 0
        return min(have, size) if found == size else 0

    def discard(self, digest: str) -> None:
        """A blob that turned out not to be what its name says."""
        with writing(self.root):
            self.path(digest).unlink(missing_ok=True)

    @contextlib.contextmanager
    def use(self, digests: Iterable[str]) -> Iterator[None]:
        """During the block these are not evicted, whether they are whole, partial or still to come.

        Where it ends with an exception, or never, what is there of them is that of an unfinished pull.
        """
        directories = {self._directory(digest) for digest in digests}
        with contextlib.ExitStack() as stack:
            for directory in directories:
                with writing(directory):
                    descriptor = _hold(directory)
                    stack.callback(os.close, descriptor)
                    stack.callback(_leave, directory, descriptor)
                    (directory / UNFINISHED).touch(mode=0o600)
            yield
            for directory in directories:
                with writing(directory):
                    (directory / UNFINISHED).unlink(missing_ok=True)

    @contextlib.contextmanager
    def fetching(self, digest: str, size: int, *, public: bool = False) -> Iterator[Partial | None]:
        """What has come of a blob in `use`, to fetch the rest in the block. None: another process does so.

        `public`: the rest comes without a login.
        """
        directory = self._directory(digest)
        with writing(directory):
            lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, lock)
            if not flock.try_lock(lock):
                yield None
                return
            partial = Partial(directory, _sha256(digest), size, boot=self._boot)
            stack.enter_context(contextlib.closing(partial))
            with writing(directory):
                if public and not partial.have and not (directory / BLOB).exists():
                    (directory / PUBLIC).touch(mode=0o600)
                elif not public and (directory / PUBLIC).exists():
                    (directory / PUBLIC).unlink()
                    sync(directory)
            try:
                yield partial
            finally:
                with contextlib.suppress(OSError):
                    (directory / UPSTREAM).unlink()

    def claim(self, digest: str, *, upstream: bool) -> None:
        """Tell others whether who is `fetching` it asks the registry for it."""
        mark = self._directory(digest) / UPSTREAM
        with writing(mark):
            if upstream:
                mark.touch(mode=0o600)
            else:
                mark.unlink(missing_ok=True)

    def has_claimed(self, digest: str) -> bool:
        """Whether others are told so."""
        return (self._directory(digest) / UPSTREAM).exists()

    def keep(self, content: bytes, digest: str, *, public: bool) -> None:
        """A whole blob that came at once, as a manifest does."""
        if self.find(digest, len(content)):
            return
        with self.use([digest]), self.fetching(digest, len(content), public=public) as partial:
            if partial is not None:
                partial.forget()
                write_atomic(self.path(digest), content)

    def blobs(self) -> list[StoredBlob]:
        """All there are, those used last first. What has no name of ours is passed over."""
        with writing(self.root):
            directories = [path for path in self.root.iterdir() if _HEX.fullmatch(path.name)]
        found: list[StoredBlob] = []
        for directory in directories:
            blob = directory / BLOB
            try:
                status = directory.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    continue
                size, have = (blob.lstat().st_size,) * 2 if blob.exists() else peek(directory)
                unfinished = size != have or (directory / UNFINISHED).exists()
            except OSError:  # gone since, or not ours
                continue
            if size is not None or have:
                digest = _PREFIX + directory.name
                found.append(
                    StoredBlob(digest=digest, size=size, have=have, used=status.st_mtime, unfinished=unfinished)
                )
        return sorted(found, key=lambda each: each.used, reverse=True)

    def evict(self, digest: str) -> bool:
        """Remove it, whole or partial. False: it is in use."""
        directory = self._directory(digest)
        with writing(directory):
            try:
                descriptor = flock.open_locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                return True
            except BlockingIOError:
                return False
            try:
                shutil.rmtree(directory)
            finally:
                os.close(descriptor)
        return True

    def trim(self, coming: int = 0) -> None:
        """Evict until there is room within the limit for so many bytes more, as far as that can go."""
        blobs, kept_since = self.blobs(), time.time() - KEPT_FOR
        excess = sum(each.have for each in blobs) + coming - self._limit
        self._evict_some(excess, [each for each in blobs if not (each.unfinished and each.used >= kept_since)])

    def make_space(self, need: Need, engine: Path) -> None:
        """See that the disks have room for it; `engine`: a directory on the Engine's. Raises NoSpace.

        What nobody uses goes for it, but only where that is enough.
        """
        with writing(self.root):
            ours, theirs = (path.stat().st_dev for path in (self.root, engine))
            if ours == theirs:
                need = Need(depot=need.depot + need.engine, engine=0)
            _require_space(engine, need.engine)
            excess = need.depot + RESERVE - _free(self.root)
            if need.depot and excess > 0:
                idle = [each for each in self.blobs() if self._is_idle(each.digest)]
                if excess <= sum(each.have for each in idle):
                    self._evict_some(excess, idle)
            _require_space(self.root, need.depot)

    def _evict_some(self, excess: int, blobs: Iterable[StoredBlob]) -> None:
        """What is longest unused goes first, what unfinished pulls have fetched last: it is nowhere else."""
        for each in sorted(blobs, key=lambda each: (each.unfinished, each.used)):
            if excess > 0 and self.evict(each.digest):
                excess -= each.have

    def _is_idle(self, digest: str) -> bool:
        try:
            os.close(flock.open_locked(self._directory(digest), fcntl.LOCK_EX | fcntl.LOCK_NB))
        except (FileNotFoundError, BlockingIOError):
            return False
        return True

    def _directory(self, digest: str) -> Path:
        return self.root / _sha256(digest).hex()


def _sha256(digest: str) -> bytes:
    """Raises ValueError."""
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or not _HEX.fullmatch(digits):
        raise ValueError(f"{digest!r} is no digest")
    return bytes.fromhex(digits)


def _hold(directory: Path) -> int:
    """A shared lock on it; it is made if it is not there, or went before the lock was ours."""
    while True:
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            sync(directory.parent)
        with contextlib.suppress(FileNotFoundError):
            descriptor = flock.open_locked(directory, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(directory.lstat(), os.fstat(descriptor)):
                    return descriptor
            os.close(descriptor)


def _leave(directory: Path, descriptor: int) -> None:
    """It was in use until now; where nothing has come for it, it goes, unless another process has it in use."""
    with contextlib.suppress(OSError):
        os.utime(descriptor)
        if _is_empty(directory):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_empty(directory):
                shutil.rmtree(directory)


def _is_empty(directory: Path) -> bool:
    return {LOCK, UNFINISHED, PUBLIC, UPSTREAM}.issuperset(path.name for path in directory.iterdir())


def _require_space(path: Path, count: int) -> None:
    """Raises NoSpace, and OSError."""
    if count and count + RESERVE > (free := _free(path)):
        mib = -(-(count + RESERVE) // (1 << 20))
        raise NoSpace(
            f"{path}: {mib} MiB are needed, and {free >> 20} MiB are free",
            hint="free space: docker system df; docker image prune",
        )


def _free(path: Path) -> int:
    return shutil.disk_usage(path).free
