"""Puts the project's files where containers can bind them: the same path inside the root container and on the host.

What a generation brought is replaced or taken away by the next one; what else lies there (data that containers wrote
into `./data`) is nobody's to touch. The list beside the directory says which is which: containers cannot reach it.

They can reach the directory, though, where the project binds it. So every step into it is taken by descriptor and
follows no link: one that a container laid leads neither us nor what we write out of there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

from dom0.agent.store import Damaged, read_json, write_json, writing
from dom0.errors import ProjectError

LIST = "placed.json"  # paths, relative to the directory beside it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place is no file, and must not be waited for


def place(files: Path, target: Path) -> None:
    """Make `target` hold every file of `files`; safe to repeat after a kill at any point.

    Raises Unwritable, and ProjectError for a file where somebody's directory is.
    """
    listed = target.with_name(LIST)
    before = _placed_before(listed)
    wanted = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_symlink() or not path.is_dir()}
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        if before != wanted:
            write_json(listed, sorted(before | wanted))
        for relative in sorted(wanted):
            _place_file(files / relative, target, PurePath(relative))
        for relative in sorted(before - wanted):
            _remove_file(target, PurePath(relative))
        if before != wanted:
            write_json(listed, sorted(wanted))


def _placed_before(listed: Path) -> set[str]:
    """Without the list, what an earlier generation brought and this one does not stays: that harms nobody."""
    try:
        return set(read_json(listed, list[str]) or [])
    except Damaged:
        return set()


def _place_file(source: Path, target: Path, relative: PurePath) -> None:
    """An unchanged file keeps its inode: running containers have it bound."""
    with _inside(target, relative, make=True) as parent:
        if not source.is_symlink() and _is_same(source, relative.name, parent):
            return
        _remove_empty(target / relative, relative.name, parent)
        temporary = f".{relative.name}.dom0-new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=parent)
        if source.is_symlink():
            os.symlink(source.readlink(), temporary, dir_fd=parent)
        else:
            _copy(source, temporary, parent)
        os.replace(temporary, relative.name, src_dir_fd=parent, dst_dir_fd=parent)


def _remove_file(target: Path, relative: PurePath) -> None:
    gone = contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
    with gone, _inside(target, relative, make=False) as parent:
        os.unlink(relative.name, dir_fd=parent)


@contextlib.contextmanager
def _inside(target: Path, relative: PurePath, *, make: bool) -> Iterator[int]:
    """A descriptor of the directory that `relative` is in. `make`: whatever is in the way of it gives way."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)  # the administrator may keep it on another disk
    try:
        for part in relative.parts[:-1]:
            inner = _enter(descriptor, part, make=make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(parent: int, name: str, *, make: bool) -> int:
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError:  # also for a link, whatever it leads to
        if not make:
            raise
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _is_same(source: Path, name: str, parent: int) -> bool:
    try:
        descriptor = os.open(name, _FILE, dir_fd=parent)
    except OSError:
        return False
    try:
        found, wanted = os.fstat(descriptor), source.stat()
        if not stat.S_ISREG(found.st_mode) or (found.st_mode, found.st_size) != (wanted.st_mode, wanted.st_size):
            return False
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read() == source.read_bytes()
    finally:
        os.close(descriptor)


def _copy(source: Path, name: str, parent: int) -> None:
    found = source.stat()
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
        shutil.copyfileobj(original, copy)
        copy.flush()
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))


def _remove_empty(path: Path, name: str, parent: int) -> None:
    """The Engine makes a directory where a bind's file was missing; anything in it is somebody's data."""
    try:
        os.rmdir(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        hint = f"move it away: mv {path} {path}.old"
        raise ProjectError(f"{path}: the project has a file here, but there is a directory", hint=hint) from error
