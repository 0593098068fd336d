"""Who serves which scope on this host: a directory for each in dom0's run directory, written by who serves it.

    scopes/guest/scope.json       a Registration; locked by its server as long as that lives
    scopes/guest/failed.json      a Failure, where a server did not start since
    scopes/guest/cgroup           the group that its containers were given last
    scopes/guest/refusals.jsonl   see `refusals`

The lock, and not the process ID, says whether a scope is served: an ID is used again, and is another one inside a
container.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dom0 import flock, names
from dom0.errors import Dom0Error, UsageError
from dom0.socketproxy import hold
from dom0.socketproxy.grants import Grants

if TYPE_CHECKING:
    from dom0.socketproxy.context import Context

FILE = "scope.json"
FAILED = "failed.json"
CGROUP = "cgroup"
SOCKET = "docker.sock"  # of an orchestrator; without a FILE beside it only its holder is there

log = logging.getLogger(__name__)


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    scope: str  # its name
    socket: str
    engine: str  # the socket behind it
    pid: int  # of its server, as that sees it
    since: float  # seconds since the epoch
    cgroup_parent: str = ""  # the group of its containers, "" for none of its own
    grants: Grants


class Registered(msgspec.Struct, frozen=True):
    registration: Registration
    is_served: bool


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a server did not start."""

    at: float  # seconds since the epoch
    message: str
    hint: str


def directory_of(scope: str) -> Path:
    return names.scopes_directory() / scope


class ScopeServer:
    """One of a scope, beside another one while the socket is handed over."""

    def __init__(self, file: Path | None = None, own: int = -1, before: int | None = None) -> None:
        """Descriptors: of its own registration in `file`, and of the one in whose place that was put."""
        self._file = file
        self._own = own
        self._before = before

    def is_alone(self) -> bool:
        """Whether who served it before has ended and nobody has begun since. Who has not registered cannot tell."""
        if self._file is None or (self._before is not None and _is_locked(self._before)):
            return False
        with contextlib.suppress(OSError):  # it was removed
            return os.path.samestat(self._file.stat(), os.fstat(self._own))
        return False


@contextmanager
def registered(context: Context, socket: Path) -> Iterator[ScopeServer]:
    """The scope is registered until the block ends; who may not write there (it takes root) serves it all the same."""
    directory = directory_of(context.scope.name)
    registration = Registration(
        scope=context.scope.name,
        socket=str(socket.absolute()),
        engine=context.upstream.socket,
        pid=os.getpid(),
        since=time.time(),
        cgroup_parent=context.cgroup_parent,
        grants=context.grants,
    )
    with contextlib.ExitStack() as stack:
        before = None
        with contextlib.suppress(OSError):
            before = stack.enter_context((directory / FILE).open("rb")).fileno()
        try:
            descriptor = _write_locked(directory, registration)
        except OSError as error:
            log.warning("%s: %s: dom0 socket ls and log do not show this scope", directory, error.strerror)
            yield ScopeServer()
            return
        stack.callback(os.close, descriptor)
        stack.callback(_remove, directory / FILE, descriptor)
        yield ScopeServer(directory / FILE, descriptor, before)


def _write_locked(directory: Path, registration: Registration) -> int:
    """Returns a descriptor of the file, whose lock ends when it is closed. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    unnamed = directory / f".{FILE}.{registration.pid}"
    descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, msgspec.json.encode(registration))
        unnamed.replace(directory / FILE)
        (directory / FAILED).unlink(missing_ok=True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(file: Path, descriptor: int) -> None:
    """Unless another server of the scope has registered meanwhile."""
    try:
        if os.path.samestat(file.lstat(), os.fstat(descriptor)):
            file.unlink()
    except FileNotFoundError:
        pass


class CgroupNote:
    """What is said of a scope's control group, for one process at a time; nothing where it may not write there."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def read(self) -> str:
        """The `CgroupParent` that containers of the scope were given last, or "". Raises OSError."""
        return "" if self._descriptor is None else os.pread(self._descriptor, 4096, 0).decode(errors="replace")

    def write(self, parent: str) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # then nobody will know to remove it
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, parent.encode(), 0)


@contextmanager
def cgroup_of(scope: str) -> Iterator[CgroupNote]:
    """A server makes its group and registers in there, so none is removed that is about to be used."""
    directory = directory_of(scope)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / CGROUP, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        yield CgroupNote(None)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield CgroupNote(descriptor)
    finally:
        os.close(descriptor)


def is_served(scope: str) -> bool:
    try:
        with (directory_of(scope) / FILE).open("rb") as opened:
            return _is_locked(opened.fileno())
    except OSError:
        return False


def process_of(scope: str) -> int:
    """Of the server that holds the lock: its ID as seen from here, 0 where it cannot be seen. proc_locks(5)."""
    try:
        found = (directory_of(scope) / FILE).stat()
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return next((max(0, int(row[4])) for row in rows if (row[1], row[5]) == ("FLOCK", place)), 0)
    except (OSError, ValueError, IndexError):
        return 0


def forget(scope: str) -> bool:
    """What a killed server, or one that did not start, has said, and its dead socket; whether it said anything.

    Raises OSError.
    """
    there = [file for name in (FILE, FAILED) if (file := directory_of(scope) / name).exists()]
    for file in there:
        file.unlink(missing_ok=True)
    with contextlib.suppress(Dom0Error):  # there is no holder
        hold.release(names.scopes_directory(), scope)
    with contextlib.suppress(UsageError):  # another one has it
        hold.check_free(socket := directory_of(scope) / SOCKET)
        socket.unlink(missing_ok=True)
    return bool(there)


def note_failure(scope: str, message: str, hint: str) -> None:
    """For `failure`. Of a name that never had a socket here, or has one that is served, the terminal alone is told."""
    directory = directory_of(scope)
    try:
        if not directory.is_dir() or is_served(scope):
            return
        unnamed = directory / f".{FAILED}.{os.getpid()}"
        unnamed.unlink(missing_ok=True)
        unnamed.write_bytes(msgspec.json.encode(Failure(at=time.time(), message=message, hint=hint)))
        unnamed.replace(directory / FAILED)
    except OSError as error:
        log.debug("%s: %s", directory, error)


def failure(scope: str) -> Failure | None:
    """Why it has no server; None where nothing is known of that."""
    try:
        return msgspec.json.decode((directory_of(scope) / FAILED).read_bytes(), type=Failure)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def check_free(scope: str, socket: Path) -> None:
    """Raises UsageError where the scope is served on another socket; Dom0Error, OSError."""
    file = directory_of(scope) / FILE
    try:
        opened = file.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with opened:
        at = _decoded(file, opened.read()).socket if _is_locked(opened.fileno()) else ""
    if at and Path(at).resolve() != socket.resolve():
        hint = f"a scope has one socket: end that server (dom0 socket show {scope}), or choose another --scope"
        raise UsageError(f"{scope}: is served already at {at}", hint=hint)


def read(scope: str) -> Registered:
    """Raises Dom0Error; OSError where there is none."""
    file = directory_of(scope) / FILE
    with file.open("rb") as opened:
        return Registered(_decoded(file, opened.read()), _is_locked(opened.fileno()))


def _decoded(file: Path, content: bytes) -> Registration:
    try:
        return msgspec.json.decode(content, type=Registration)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Dom0Error(f"{file}: is not understood: {error}", hint="is its server of another version?") from error


def _is_locked(descriptor: int) -> bool:
    return not flock.try_lock(descriptor, fcntl.LOCK_SH)


def known(*files: str) -> list[str]:
    """Scopes that have one of these files in their directory. Raises OSError."""
    try:
        directories = sorted(names.scopes_directory().iterdir())
    except FileNotFoundError:
        return []
    return [one.name for one in directories if any((one / file).exists() for file in files or (FILE,))]


def unserved(scope: str) -> UsageError:
    """What is to be said of one that has a socket, or had one, and no server that is known."""
    failed = failure(scope)
    message = f"{scope}: nobody serves its socket{f': {failed.message}' if failed else ''}"
    hint = f"an orchestrator's? dom0 status; docker logs dom0-socket-{scope}; not wanted? dom0 socket rm {scope}"
    return UsageError(message, hint=(failed and failed.hint) or hint)


def require(scope: str, *files: str) -> Path:
    """The directory of a scope that is `known`. Raises UsageError, OSError."""
    if scope not in (there := known(*files)):
        if scope in known(SOCKET, FAILED):
            raise unserved(scope)
        hint = f"there are: {', '.join(there)}" if there else f"none is here; dom0 socket serve --scope {scope}"
        raise UsageError(f"{scope}: no such scope", hint=hint)
    return directory_of(scope)
