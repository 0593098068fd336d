"""A farm on the disk of its server. Commands and the server share it, also at the same time, and each of them may be
killed at any moment.

    farm.yaml                  what a person says (`settings`)
    roles/NAME/compose.yaml    a role: the project that its nodes are to run
    state/nodes.json           which machines wait, and which are nodes (`nodes`); replaced as a whole, under a lock
    float/NAME/compose.yaml    a project that runs on Swarm mode, wherever there is room for it
    state/float.json           who is what in the farm's Swarm (`float_swarm`); as nodes.json
    state/float/               what each node said last of that, by its key
    state/rollout.json         who has a turn or a reboot lock, which roles are paused (`rollout`); as nodes.json
    state/server.pem           key and certificate of the server, never made anew: nodes know the server by it
    state/revisions/N.json     revisions (`revisions`), each written once
    state/current.json         the number of the current one
    state/epoch.json           which copy of all this is the server (`epoch`)
    state/blobs/               what their images and private files are made of, by digest
    state/reports/             what each node said last, by the key that it has in nodes.json
    state/notify.json          what people were told of nodes and roles (`dom0.agent.notify`)
    state/reach                while it is served: where commands reach nodes (`calls`), on the server's machine
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0 import flock
from dom0.durable import sync, write_atomic, writing
from dom0.errors import Busy, Dom0Error, ProjectError, UsageError
from dom0.farms import epoch, settings
from dom0.farms.epoch import Epochs
from dom0.farms.float_swarm import FloatReport, FloatState
from dom0.farms.nodes import NAME, Nodes
from dom0.farms.revisions import NodeReport, Revision, find_unneeded
from dom0.farms.rollout import RolloutState
from dom0.farms.settings import FarmSettings
from dom0.wording import did_you_mean, excerpt

S = TypeVar("S")
T = TypeVar("T")
PATIENCE = 10.0  # seconds for another process to let go of the lock, which it has for one write
_LOCK_AGAIN = 0.01  # seconds between attempts
_OF_MAKE = {"roles", "state", "README.md", f".{settings.FILE}.new"}  # what a killed one leaves
_SETTINGS = """\
name: {name}
listen: {listen} # where its server answers, ADDRESS:PORT; 0.0.0.0 is every address of this machine
"""


class CurrentRevision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`since`: when it became the current one, in seconds since the epoch, by the clock of whoever made it so."""

    revision: int = 0
    since: float = 0.0


class FarmDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        self.server_pem = self.state / "server.pem"
        self.reach = self.state / "reach"
        self._nodes = self.state / "nodes.json"
        self._rollout = self.state / "rollout.json"
        self._current = self.state / "current.json"
        self._revisions = self.state / "revisions"
        self._reports = self.state / "reports"
        self._blobs = self.state / "blobs"
        self._float = self.state / "float.json"
        self._float_reports = self.state / "float"
        self._epoch = self.state / "epoch.json"

    def settings(self) -> FarmSettings:
        """Raises ProjectError."""
        try:
            return settings.read((self.path / settings.FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ProjectError(
                f"{self.path}: no farm is here: it has no {settings.FILE}",
                hint="make one: dom0 farm init DIR; or say where it is: --dir DIR",
            ) from error

    def roles(self) -> list[str]:
        return self._projects("roles")

    def floats(self) -> list[str]:
        """Projects that run on Swarm mode. Raises ProjectError for one that is not read: what it runs would go."""
        found = self._projects("float")
        for file in sorted((self.path / "float").glob("*/*compose.y*ml")):
            if file.parent.name not in found:
                hint = "float/NAME/compose.yaml, with a NAME of small letters, digits and dashes, at most 63"
                raise ProjectError(f"{file}: nobody reads a file there", hint=hint)
        return found

    def _projects(self, kind: str) -> list[str]:
        found = (self.path / kind).glob("*/compose.yaml")
        return sorted(file.parent.name for file in found if NAME.fullmatch(file.parent.name))

    def check_role(self, role: str) -> None:
        """Raises UsageError where there is none."""
        if role not in (known := self.roles()):
            hint = did_you_mean(role, known) or f"make it: {self.path / 'roles'}/NAME/compose.yaml"
            raise UsageError(f"{excerpt(role)}: is no role of this farm", hint=hint)

    def nodes(self) -> Nodes:
        """Raises Dom0Error where the file is not what we wrote, or cannot be read."""
        return (
            self._read(
                self._nodes, Nodes, "put a copy of it in its place; without one each machine has to be approved again"
            )
            or Nodes()
        )

    def change(self, step: Callable[[Nodes], tuple[Nodes, T]]) -> T:
        """Put what `step` makes of the nodes in their place, on the disk before this returns, and return its other
        result.

        Raises Busy, Unwritable, and what `step` does; nothing has changed then.
        """
        return self._change(self._nodes, self.nodes, step)

    def stamp(self) -> tuple[object, ...]:
        """Differs after each change of what is kept here, except reports."""

        def look(path: Path) -> tuple[int, int] | None:
            try:
                found = path.stat()
            except OSError:
                return None
            return found.st_ino, found.st_mtime_ns

        return tuple(look(path) for path in (self._nodes, self._current, self._rollout))

    def rollout(self) -> RolloutState:
        """Raises Dom0Error where the file is not what we wrote, or cannot be read."""
        hint = "put a copy of it in its place; without one no role is paused, and nobody has a reboot lock"
        return self._read(self._rollout, RolloutState, hint) or RolloutState()

    def change_rollout(self, step: Callable[[RolloutState], tuple[RolloutState, T]]) -> T:
        """As `change`, of what has to be known of the roll-out and of reboots."""
        return self._change(self._rollout, self.rollout, step)

    def float_state(self) -> FloatState:
        """Raises Dom0Error where the file is not what we wrote, or cannot be read."""
        hint = "put a copy of it in its place; without one each machine that is in the Swarm has to leave it first"
        return self._read(self._float, FloatState, hint) or FloatState()

    def change_float(self, step: Callable[[FloatState], tuple[FloatState, T]]) -> T:
        """As `change`, of what has to be known of the farm's Swarm."""
        return self._change(self._float, self.float_state, step)

    # which copy of it is the server

    def epochs(self) -> Epochs:
        """Raises Dom0Error where the file is not what we wrote, or cannot be read."""
        hint = "put a copy of it in its place; or, if this is the farm's server, remove it and: dom0 farm promote"
        return self._read(self._epoch, Epochs, hint) or Epochs()

    def promote(self) -> Epochs:
        """From now on this copy is the server, whichever was it before. Raises Busy, Unwritable, Dom0Error."""
        return self._change_epochs(lambda before: epoch.promote(before, self.server_pem.read_bytes()))

    def hear_epoch(self, heard: str) -> Epochs:
        """As a node has named it. Raises Busy, Unwritable, Dom0Error."""
        return self._change_epochs(lambda before: epoch.hear(before, heard, self.server_pem.read_bytes()))

    def _change_epochs(self, step: Callable[[Epochs], Epochs]) -> Epochs:
        with self._lock(self.state):
            before = self.epochs()
            after = step(before)
            if after != before:
                write_atomic(self._epoch, msgspec.json.encode(after), owner=self._owner())
        return after

    def check_is_server(self) -> None:
        """Raises UsageError where another copy was promoted since."""
        if self.epochs().is_superseded:
            raise UsageError(
                f"{self.path}: another copy of this farm was promoted, and is its server; here nothing is changed",
                hint="go on there; or, if it is gone for ever, make this one the server again: dom0 farm promote",
            )

    def _change(self, file: Path, read: Callable[[], S], step: Callable[[S], tuple[S, T]]) -> T:
        with self._locked() as owner:
            before = read()
            after, result = step(before)
            if after != before:
                write_atomic(file, msgspec.json.encode(after), owner=owner)
        return result

    # revisions

    def revisions(self) -> list[Revision]:
        """The oldest first. Raises Dom0Error."""
        names = self._revisions.iterdir() if self._revisions.is_dir() else ()
        numbers = sorted(int(path.stem) for path in names if path.suffix == ".json" and path.stem.isdecimal())
        return [revision for number in numbers if (revision := self.revision(number))]

    def revision(self, number: int) -> Revision | None:
        """Raises Dom0Error."""
        return self._read(
            self._revisions / f"{number}.json", Revision, "put a copy of it in its place: dom0 farm history"
        )

    def current(self) -> Revision | None:
        """Raises Dom0Error, also where the file of the revision is gone."""
        if (which := self._which()) is None:
            return None
        if (found := self.revision(which.revision)) is None:
            hint = f"put a copy of it into {self._revisions}; without one: rm {self._current}; dom0 farm rollback N"
            raise Dom0Error(f"{self._current}: revision {which.revision}: is not there", hint=hint)
        return found

    def current_since(self) -> float:
        """When it became so, in seconds since the epoch; 0: not known. Raises Dom0Error."""
        return (self._which() or CurrentRevision()).since

    def _which(self) -> CurrentRevision | None:
        return self._read(self._current, CurrentRevision, f"rm {self._current}; dom0 farm rollback N")

    def revise(self, step: Callable[[list[Revision]], Revision]) -> tuple[Revision, bool]:
        """Make what `step` makes of all revisions the current one, and say whether that is a change.

        One that is new is on the disk as a whole before it is current, and never written again. Raises Busy,
        Unwritable, Dom0Error, and what `step` does; the same one as before is current then.
        """
        with self._locked() as owner:
            known = self.revisions()
            wanted, before = step(known), self._read(self._current, CurrentRevision, "")
            if wanted not in known:
                path = self._revisions / f"{wanted.number}.json"
                assert not path.exists(), path
                self._write(path, msgspec.json.encode(wanted), owner)
            if before is not None and before.revision == wanted.number:
                return wanted, False
            after = CurrentRevision(revision=wanted.number, since=time.time())
            self._write(self._current, msgspec.json.encode(after), owner)
        return wanted, True

    @contextlib.contextmanager
    def publishing(self) -> Iterator[None]:
        """Nobody else adds blobs or removes any during the block. Raises Busy, Unwritable."""
        with writing(self._blobs):
            self._make(self._blobs, self._owner())
        with self._lock(self._blobs):
            yield

    def prune(self) -> tuple[list[int], int]:
        """Remove revisions that nobody needs, and blobs that no remaining one has; while `publishing`. Returns the
        numbers and bytes.

        Killed, it leaves blobs to the next one, and no revision without its blobs. Raises Dom0Error.
        """
        with self._locked():
            known, state, which = self.revisions(), self.rollout(), self._which()
            numbers = {turn.revision for turn in state.turns.values()} | {which.revision if which else 0}
            numbers |= {settled.revision for settled in state.settled.values()}
            gone = find_unneeded(known, numbers, self.reports().values())
            with writing(self._revisions):
                for revision in gone:
                    (self._revisions / f"{revision.number}.json").unlink()
                if gone:
                    sync(self._revisions)
            wanted = {self.blob(digest).name for one in known if one not in gone for digest in one.blobs}
            freed = 0
            with writing(self._blobs):
                for path in self._blobs.iterdir():
                    if path.name not in wanted:
                        freed += path.stat().st_size
                        path.unlink()
        return sorted(revision.number for revision in gone), freed

    # what they are made of

    def blob(self, digest: str) -> Path:
        """Where it is, if it is there. `digest` is one: nothing else may come from outside."""
        return self._blobs / digest.removeprefix("sha256:")

    def has_blob(self, digest: str, size: int) -> bool:
        try:
            return self.blob(digest).stat().st_size == size
        except OSError:
            return False

    def add_blob(self, digest: str, pieces: Iterable[bytes]) -> None:
        """As a whole or not at all, and on the disk. Raises Unwritable."""
        path = self.blob(digest)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        with writing(path):
            self._make(path.parent, self._owner())
            try:
                with fresh.open("wb") as file:
                    os.fchmod(file.fileno(), 0o600)
                    if owner := self._owner():
                        os.fchown(file.fileno(), *owner)
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(path)
                sync(path.parent)
            finally:
                fresh.unlink(missing_ok=True)

    # what nodes say

    def reports(self) -> dict[str, NodeReport]:
        """By the keys of the nodes; what is damaged is left out: the node says it again."""
        return self._reports_in(self._reports, NodeReport)

    def report(self, key: str) -> NodeReport:
        """As `reports`, of one node."""
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode((self._reports / f"{key}.json").read_bytes(), type=NodeReport)
        return NodeReport()

    def put_report(self, key: str, report: NodeReport | None) -> None:
        """`None`: it is no node any more. Raises Unwritable."""
        self._put_report(self._reports / f"{key}.json", report)

    def float_reports(self) -> dict[str, FloatReport]:
        """As `reports`, of what they are in the Swarm."""
        return self._reports_in(self._float_reports, FloatReport)

    def put_float_report(self, key: str, report: FloatReport | None) -> None:
        """As `put_report`."""
        self._put_report(self._float_reports / f"{key}.json", report)

    def _reports_in(self, directory: Path, kind: type[T]) -> dict[str, T]:
        found = {}
        for path in directory.iterdir() if directory.is_dir() else ():
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
                found[path.stem] = msgspec.json.decode(path.read_bytes(), type=kind)
        return found

    def _put_report(self, path: Path, report: msgspec.Struct | None) -> None:
        if report is not None:
            self._write(path, msgspec.json.encode(report), self._owner())
            return
        with writing(path):
            path.unlink(missing_ok=True)

    # files

    def _read(self, path: Path, kind: type[T], hint: str) -> T | None:
        """Raises Dom0Error where the file is not what we wrote, or cannot be read."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Dom0Error(f"{path}: is damaged: {error}", hint=hint) from error
        except PermissionError as error:
            owner = f"it has to belong to who serves the farm: chown --reference={self.state} {path}"
            raise Dom0Error(f"{path}: permission denied", hint=owner) from error
        except OSError as error:
            raise Dom0Error(f"{path}: cannot be read: {error.strerror}", hint="if it is the disk: dmesg") from error

    def _write(self, path: Path, content: bytes, owner: tuple[int, int] | None) -> None:
        with writing(path):
            self._make(path.parent, owner)
        write_atomic(path, content, owner=owner)

    def _make(self, directory: Path, owner: tuple[int, int] | None) -> None:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)
            if owner is not None:
                os.chown(directory, *owner)
            sync(directory.parent)

    def _owner(self) -> tuple[int, int] | None:
        """Who owns the files that root writes, as by `sudo dom0 farm approve`."""
        found = self.state.stat()
        return (found.st_uid, found.st_gid) if os.geteuid() == 0 else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[int, int] | None]:
        """No other process changes what is in `state` meanwhile. Raises Busy, Unwritable, and as `check_is_server`."""
        with self._lock(self.state):
            self.check_is_server()
            yield self._owner()

    @contextlib.contextmanager
    def _lock(self, directory: Path) -> Iterator[None]:
        with writing(directory):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        deadline = time.monotonic() + PATIENCE
        try:
            while not flock.try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise Busy(f"{directory}: another process has it", hint="see which one: lslocks")
                time.sleep(_LOCK_AGAIN)
            yield
        finally:
            os.close(descriptor)

    def check_new(self) -> None:
        """Raises ProjectError where something is in the way; what a killed `make` has left is not."""
        if self.path.exists() and not self.path.is_dir():
            raise ProjectError(f"{self.path}: is no directory", hint="name another one: dom0 farm init DIR")
        if self.path.is_dir() and any(entry.name not in _OF_MAKE for entry in self.path.iterdir()):
            raise ProjectError(
                f"{self.path}: is not empty", hint="nothing is overwritten; name another one: dom0 farm init DIR"
            )

    def make(self, name: str, pem: bytes, given: Mapping[str, bytes]) -> None:
        """The files of a new farm, and those that are `given`, by their paths in it; the one that makes it a farm comes
        last. Raises Unwritable.
        """
        with writing(self.state):
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.state.chmod(0o700)
        listen = f"0.0.0.0:{settings.PORT}"
        said = given.get(settings.FILE, _SETTINGS.format(name=name, listen=listen).encode())
        files = {
            self.server_pem: (pem, 0o600),
            self.state / ".gitignore": (b"*\n", 0o644),
            **{self.path / file: (content, 0o644) for file, content in given.items() if file != settings.FILE},
            self.path / settings.FILE: (said, 0o644),
        }
        for path, (content, mode) in files.items():
            if not path.exists():
                write_atomic(path, content, mode=mode)
