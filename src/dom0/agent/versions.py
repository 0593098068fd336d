"""What lies at a path, as the value that `three_way` compares. Reads the disk, changes nothing, follows no link."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from io import FileIO
from pathlib import Path, PurePath

from dom0.agent.three_way import DIRECTORY, FileVersion
from dom0.errors import ProjectError
from dom0.images import contents

OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place is no file, and must not be waited for
ROOT = "."  # the path of the project's own directory
NOTHING_THERE = (FileNotFoundError, NotADirectoryError)  # the second also for a link in the way
_CHUNK = 256 * 1024  # bytes
_OTHERS = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def spelled(path: str) -> str:
    """`path` as JSON can hold it, also where its bytes are no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def project_versions(entries: Iterable[contents.TreeEntry]) -> dict[str, FileVersion]:
    """What a project says of each of its paths. Raises ProjectError for what cannot be read."""
    found = {}
    for entry in entries:
        try:
            found[entry.name] = read_version(entry.path)
        except OSError as error:
            raise ProjectError(f"{entry.path}: {error.strerror}") from error
    return found


def read_version(name: str, parent: int | None = None, *, known: Collection[FileVersion] = ()) -> FileVersion:
    """`parent`: descriptor of the directory that it is in. `known`: what it is compared with.

    A file whose size is none of theirs is not read: a database may be as large as the disk. Raises OSError.
    """
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFDIR:
            return FileVersion(DIRECTORY, mode, *owner)
        case stat.S_IFLNK:
            return FileVersion(f"link {spelled(os.readlink(name, dir_fd=parent))}", 0, *owner)
        case stat.S_IFREG:
            pass  # read below
        case other:
            return FileVersion(_OTHERS.get(other, "device"), mode, *owner)
    sizes = {version.content.split()[1] if version.kind == "file" else "" for version in known}
    descriptor = os.open(name, OPEN, dir_fd=parent)
    with FileIO(descriptor) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):  # it was one a moment ago: a container is trying something
            return FileVersion("another")
        read = not sizes or str(found.st_size) in sizes
        content = f"file {found.st_size} {_digest(file, found.st_size) if read else 'another'}"
        return FileVersion(
            content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, tuple(contents.attributes(descriptor))
        )


def _digest(file: FileIO, size: int) -> str:
    """Of so many bytes, however fast more of them come."""
    total = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        total.update(chunk)
        size -= len(chunk)
    return f"sha256:{total.hexdigest()}"


def read_content(root: Path, path: str, *, most: int) -> bytes | None:
    """Of a regular file of at most that many bytes, else None."""
    with (
        contextlib.suppress(OSError),
        inside(root, path) as (parent, name),
        FileIO(os.open(name, OPEN, dir_fd=parent)) as file,
    ):
        found = os.fstat(file.fileno())
        return file.read(most) if stat.S_ISREG(found.st_mode) and found.st_size <= most else None
    return None


@contextlib.contextmanager
def inside(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """A descriptor of the directory that `path` is in, and its name there. No link below `root` is followed.

    Raises NOTHING_THERE.
    """
    *directories, name = PurePath(path).parts or (ROOT,)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)  # the administrator may keep it on another disk
    try:
        for directory in directories:
            inner = os.open(directory, OPEN | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)
