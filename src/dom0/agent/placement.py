"""Puts the project's files where containers can bind them: the same path inside the root container and on the host.

What is to be done with each of them is decided in `three_way`; here are the disk and the record of what was placed. It
lies beside the directory, where containers cannot reach it, and says before a change what may lie there afterwards: of
a placement that was cut off the next one knows what it did and what the machine wrote.

Containers reach the directory where the project binds it. So every step into it is taken by descriptor and follows no
link: one that a container laid leads neither us nor what we write out of there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePath

from dom0.agent.store import Damaged, read_json, write_json
from dom0.agent.three_way import DIRECTORY, NEVER, FileAction, FileStep, FileVersion, Placed, decide, done, under_way
from dom0.agent.versions import NOTHING_THERE, OPEN, ROOT, inside, project_versions, read_version, spelled
from dom0.durable import writing
from dom0.errors import ProjectError, UsageError
from dom0.images import contents, left_out

RECORD = "placed.json"  # path, relative to the directory beside it -> what we placed there
TEMPORARY = ".dom0-new"  # what is about to get its name, in the same directory
OLD = ".dom0-old"  # appended to the name of what a person replaced by the project's
ROUNDS = 3  # of looks, where a file changes under our hands

_OWN_ROOT = (FileVersion(DIRECTORY, 0o755),)  # as we make it

Versions = Mapping[str, FileVersion]
FileSteps = dict[str, FileStep]
Record = dict[str, tuple[FileVersion | None, ...]]  # by spelled path


def versions_of(files: Path) -> dict[str, FileVersion]:
    """What the project whose files these are says of each path. Raises ProjectError."""
    return project_versions([contents.top(files), *contents.entries(files, lambda name: name == left_out.FILE)])


class Placement:
    """Of one machine's files, in the directory `target`. Every call raises Unwritable."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._record = target.with_name(RECORD)

    def place(self, files: Path) -> FileSteps:
        """Bring `target` to what the project `files` says, as far as the machine did not change it: what was decided.

        Safe to repeat after a kill at any point. Raises ProjectError for a file where somebody's directory is.
        """
        theirs, stays, record = versions_of(files), left_out.read(files), self.record(files)
        with writing(self.target):
            if not self.target.is_dir():
                self.target.mkdir(parents=True)
                self.target.chmod(0o755)
            self._discard_unfinished(record)
            for _ in range(ROUNDS):
                steps = self.plan(theirs, record, stays)
                skipped = self._carry_out(steps, files, record)
                record = _written(record, {p: step for p, step in steps.items() if p not in skipped}, done)
                if not skipped:
                    break
            with contextlib.suppress(Damaged):
                if read_json(self._record, Record) == record:
                    return steps
            write_json(self._record, record)
        return steps

    def plan(self, theirs: Versions, record: Record, stays: Callable[[str], bool] = lambda _path: False) -> FileSteps:
        """What placing would do. Below what the machine has in the place of a directory nothing can be placed.

        `stays`: what is not removed although the project does not bring it, see `left_out`.
        """
        steps: FileSteps = {}
        barred: list[str] = []
        # directories that the project has and brings nothing in: a line in `.dockerignore` says that they hold data
        filled = {str(PurePath(path).parent) for path in theirs}
        emptied = {path for path, version in theirs.items() if version.content == DIRECTORY and path not in filled}
        unspelled = {spelled(path): path for path in theirs}
        for path in sorted({*theirs, *(unspelled.get(path, path) for path in record)}):
            if any(path.startswith(f"{bar}/") for bar in barred):
                continue
            placed, wanted = _placed(record, path), theirs.get(path)
            with writing(self.target / path):
                step = decide(self._look(path, (*placed, wanted)), placed, wanted)
            is_data = stays(path) or any(str(parent) in emptied for parent in PurePath(path).parents)
            if step.action is FileAction.REMOVE and is_data:
                step = step._replace(action=FileAction.KEEP, wanted=step.there)
            is_directory = wanted is not None and wanted.content == DIRECTORY
            if is_directory and step.wanted is not None and step.wanted.content != DIRECTORY:
                barred.append(path)
            if step.action is FileAction.CREATE:
                steps |= {str(p): _made(steps[str(p)]) for p in PurePath(path).parents if str(p) in steps}
            steps[path] = step
        return steps

    def record(self, files: Path | None) -> Record:
        """Without it, what differs is the machine's. An earlier dom0 listed only names: of the generation `files`.

        Where the whole directory is gone, a person wants it anew.
        """
        if not self.target.is_dir():
            return {}
        with contextlib.suppress(Damaged):
            return read_json(self._record, Record) or {}
        if files is None:
            return {}
        with contextlib.suppress(Damaged):
            listed = {*(read_json(self._record, list[str]) or [])}
            return {
                spelled(path): (version,)
                for path, version in versions_of(files).items()
                if path in listed or (version.content == DIRECTORY and path != ROOT)
            }
        return {}

    def take(self, files: Path, paths: Collection[str]) -> FileSteps:
        """Let the project's version replace the machine's, which is kept beside it. Raises UsageError."""
        theirs, record = versions_of(files), self.record(files)
        steps = self.plan(theirs, record)
        chosen = [path for path in _chosen(theirs, paths) if path not in steps or steps[path].there != theirs[path]]
        with writing(self.target):
            aside = []
            for path in chosen:
                there = steps[path].there if path in steps else None
                if there is not None and there.content != theirs[path].content:
                    aside.append(path)
                    there = None
                record[spelled(path)] = (there, theirs[path])
            write_json(self._record, record)
            for path in aside:
                self._set_aside(path)
        return self.place(files)

    def keep(self, files: Path, paths: Collection[str]) -> FileSteps:
        """Settle conflicts: the machine's version stays until the project says another again. Raises UsageError."""
        theirs, before = versions_of(files), self.record(files)
        steps, record = self.plan(theirs, before), dict(before)
        for path in _chosen(theirs, paths):
            if path in steps and steps[path].action is FileAction.CONFLICT:
                record[spelled(path)] = (theirs[path],)
        with writing(self.target):
            self._discard_unfinished(before)
        write_json(self._record, record)
        return self.plan(theirs, record)

    # the disk

    def _discard_unfinished(self, record: Record) -> None:
        """What a placement that was cut off had not yet given its name: `record` says where it was at work."""
        for path, placed in record.items():
            if len(placed) > 1:
                with contextlib.suppress(*NOTHING_THERE), inside(self.target, path) as (parent, _):
                    _discard(parent)

    def _look(self, path: str, asked: Iterable[FileVersion | None]) -> FileVersion | None:
        """The Engine makes a directory where a bind's file is missing: an empty one counts as nothing."""
        known = [version for version in asked if version is not None]
        with contextlib.suppress(*NOTHING_THERE), inside(self.target, path) as (parent, name):
            found = read_version(name, parent, known=known)
            is_theirs = any(version.content == DIRECTORY for version in known)
            return None if found.content == DIRECTORY and not is_theirs and _is_empty(name, parent) else found
        return None

    def _carry_out(self, steps: FileSteps, files: Path, record: Record) -> set[str]:
        """Returns what changed meanwhile and was left. What goes goes first: a file may follow a directory."""
        for path, step in steps.items():
            if step.action is FileAction.CONFLICT and step.there is not None and step.there.content == DIRECTORY:
                raise _in_the_way(self.target / path)
        changes = {path: step for path, step in steps.items() if step.wanted != step.there}
        if not changes:
            return set()
        write_json(self._record, _written(record, changes, under_way))
        gone = [path for path in reversed(changes) if changes[path].wanted is None]
        come = [path for path in changes if changes[path].wanted is not None]
        skipped = {path for path in (*gone, *come) if not self._change(path, changes[path], files, record)}
        for path in {PurePath(path).parent: path for path in changes}.values():
            with contextlib.suppress(*NOTHING_THERE), inside(self.target, path) as (parent, _):
                os.fsync(parent)
        return skipped

    def _change(self, path: str, step: FileStep, files: Path, record: Record) -> bool:
        """False: it was changed between the look and now."""
        same_content = step.there is not None and step.wanted is not None and step.there.content == step.wanted.content
        with contextlib.suppress(*NOTHING_THERE), inside(self.target, path) as (parent, name):
            if step.wanted is not None and not same_content:
                _make(files / path, step.wanted, parent)
            if self._look(path, (*_placed(record, path), step.theirs)) != step.there:
                _discard(parent)
                return False
            if step.wanted is None:
                os.unlink(name, dir_fd=parent)
            elif same_content:
                _give_rights(name, step.wanted, parent)
            else:
                self._make_room(path, step, parent)
                os.rename(TEMPORARY, name, src_dir_fd=parent, dst_dir_fd=parent)
            return True
        return False

    def _make_room(self, path: str, step: FileStep, parent: int) -> None:
        name = PurePath(path).name
        if step.wanted is not None and step.wanted.content == DIRECTORY:
            if step.there is not None:
                os.unlink(name, dir_fd=parent)
            return
        try:
            os.rmdir(name, dir_fd=parent)
        except NOTHING_THERE:
            return
        except OSError as error:  # anything in it is somebody's data
            raise _in_the_way(self.target / path) from error

    def _set_aside(self, path: str) -> None:
        """Under the first name that is free, and never over anything."""
        with contextlib.suppress(*NOTHING_THERE), inside(self.target, path) as (parent, name):
            for number in itertools.count():
                free = f"{name}{OLD}{f'.{number}' if number else ''}"
                with contextlib.suppress(FileExistsError):
                    try:
                        os.link(name, free, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
                    except PermissionError:  # a directory
                        os.mkdir(free, dir_fd=parent)
                        os.rename(name, free, src_dir_fd=parent, dst_dir_fd=parent)
                    else:
                        os.unlink(name, dir_fd=parent)
                    return


def _placed(record: Record, path: str) -> Placed:
    return record.get(spelled(path), _OWN_ROOT if path == ROOT else NEVER)


def _written(record: Record, steps: FileSteps, say: Callable[[Placed, FileStep], Placed]) -> Record:
    """The record with what `say` says after each of `steps`; where nothing of ours is, it says nothing."""
    new = record | {spelled(path): tuple(say(_placed(record, path), step)) for path, step in steps.items()}
    return {path: placed for path, placed in new.items() if placed != NEVER}


def _made(step: FileStep) -> FileStep:
    """Of a directory that something new comes into, also if the machine removed it."""
    return step._replace(action=FileAction.CREATE, wanted=step.theirs) if step.wanted is None else step


def _chosen(theirs: Versions, paths: Collection[str]) -> list[str]:
    """Those of the project's paths that are named, or below one that is. Raises UsageError for what is not its."""
    chosen: set[str] = set()
    for named in paths:
        found = {path for path in theirs if named in (spelled(path), ROOT) or spelled(path).startswith(f"{named}/")}
        if not found:
            raise UsageError(f"{named}: is no file of the project", hint="dom0 files lists what the machine changed")
        chosen |= found
    return sorted(chosen)


def _in_the_way(path: Path) -> ProjectError:
    hint = f"move it away: mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}"
    return ProjectError(f"{path}: the project has a file here, but there is a directory", hint=hint)


def _is_empty(name: str, parent: int) -> bool:
    descriptor = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=parent)
    try:
        return not os.listdir(descriptor)  # noqa: PTH208 -- a descriptor is no path
    finally:
        os.close(descriptor)


def _make(source: Path, wanted: FileVersion, parent: int) -> None:
    """As TEMPORARY, complete and on the disk."""
    _discard(parent)
    if wanted.kind == "link":
        os.symlink(source.readlink(), TEMPORARY, dir_fd=parent)
    elif wanted.content == DIRECTORY:
        os.mkdir(TEMPORARY, 0o700, dir_fd=parent)
    else:
        descriptor = os.open(TEMPORARY, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy)
            copy.flush()
            found = os.fstat(original.fileno())
            os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
            os.fsync(descriptor)  # else a power cut may leave it empty, and that looks like the machine's change
    _give_rights(TEMPORARY, wanted, parent)


def _give_rights(name: str, wanted: FileVersion, parent: int) -> None:
    """The owner first: a change of it takes a set-user-ID bit and capabilities away."""
    os.chown(name, wanted.uid, wanted.gid, dir_fd=parent, follow_symlinks=False)
    if wanted.kind == "link":
        return
    descriptor = os.open(name, OPEN, dir_fd=parent)
    try:
        os.fchmod(descriptor, wanted.mode)
        for attribute in contents.ATTRIBUTES:
            with contextlib.suppress(OSError):  # it has none, or the file system
                os.removexattr(descriptor, attribute)
        for attribute, value in wanted.attributes:
            os.setxattr(descriptor, attribute, value)
    finally:
        os.close(descriptor)


def _discard(parent: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(TEMPORARY, dir_fd=parent)
        except IsADirectoryError:
            os.rmdir(TEMPORARY, dir_fd=parent)
