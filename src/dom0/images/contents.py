"""The files below a directory: a list of them, their digest, a copy. No Engine, no network.

Symbolic links are never followed. Sockets are left out, as docker does; pipes and devices are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from dom0.errors import ProjectError

ATTRIBUTES = ("security.capability",)  # the Engine puts no other into the archives that it gives out
PAX = "SCHILY.xattr."  # before an attribute's name in a tar
_CHUNK = 64 * 1024  # bytes

Ignored = Callable[[str], bool]
"""Whether a path, relative and with `/`, is left out."""


class TreeEntry(NamedTuple):
    """A file, link or directory. `name` is its path from the root, with `/`; `mode` its permission bits."""

    name: str
    path: str
    kind: str  # file, link, directory
    mode: int
    uid: int
    gid: int
    found: os.stat_result


def entries(root: Path, ignored: Ignored = lambda name: False, *, prune: bool = True) -> Iterator[TreeEntry]:
    """What is below `root`, sorted. Without `prune`, ignored directories are searched for what is not ignored.

    Raises ProjectError for what cannot be read or copied.
    """
    return _entries(root, "", ignored, prune)


def top(root: Path) -> TreeEntry:
    """The entry of `root` itself, which `entries` leaves out. Raises ProjectError."""
    try:
        return _entry(".", str(root), "directory", root.stat())
    except OSError as error:
        raise ProjectError(f"{root}: {error.strerror}") from error


def _entries(directory: str | Path, prefix: str, ignored: Ignored, prune: bool) -> Iterator[TreeEntry]:
    try:
        found = sorted(os.scandir(directory), key=lambda item: item.name)
    except OSError as error:
        raise ProjectError(f"{directory}: {error.strerror}") from error
    for item in found:
        name = prefix + item.name
        out = ignored(name)
        if item.is_dir(follow_symlinks=False):
            if not out:
                yield _entry(name, item.path, "directory", item.stat(follow_symlinks=False))
            if not (out and prune):
                yield from _entries(item.path, f"{name}/", ignored, prune)
        elif not out and (entry := _leaf(name, item.path, item.stat(follow_symlinks=False))):
            yield entry


def _leaf(name: str, path: str, found: os.stat_result) -> TreeEntry | None:
    if stat.S_ISSOCK(found.st_mode):
        return None
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise ProjectError(f"{path}: is a pipe or a device, an image cannot hold it", hint="name it in .dockerignore")
    return _entry(name, path, "link" if stat.S_ISLNK(found.st_mode) else "file", found)


def named(name: str, path: Path, ignored: Ignored, *, prune: bool = True) -> Iterator[TreeEntry]:
    """The entry of `path` under another `name`, and all below it as `entries`; nothing if `path` does not exist.

    Raises ProjectError.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        yield from filter(None, [_leaf(name, str(path), found)])
        return
    yield _entry(name, str(path), "directory", found)
    yield from _entries(path, f"{name}/", ignored, prune)


def _entry(name: str, path: str, kind: str, found: os.stat_result) -> TreeEntry:
    return TreeEntry(name, path, kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found)


def file_entry(name: str, path: Path) -> TreeEntry:
    """The file `path`, called `name`. Raises OSError."""
    return _entry(name, str(path), "file", os.lstat(path))


def digest(found: Iterable[TreeEntry], *, text: str = "", owned: bool = False) -> str:
    """`sha256:…` of names, kinds, permissions and contents, and of `text`; if `owned`, of owners and attributes too.

    Raises ProjectError.
    """
    total = hashlib.sha256(text.encode())
    for entry in found:
        head = f"\0{entry.kind} {entry.mode:o} {entry.name}\0"
        if owned:
            head += f"{entry.uid}:{entry.gid} {list(attributes(entry.path))}\0"
        total.update(head.encode(errors="surrogateescape"))
        try:
            if entry.kind == "file":
                total.update(_sha256(entry.path))
            elif entry.kind == "link":
                total.update(_target(entry).encode(errors="surrogateescape"))
        except OSError as error:
            raise ProjectError(f"{entry.path}: {error.strerror}") from error
    return f"sha256:{total.hexdigest()}"


def _sha256(path: str | Path) -> bytes:
    """As hashlib.file_digest, with a buffer that fits hundreds of small files better."""
    total = hashlib.sha256()
    with FileIO(path) as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.digest()


def _target(link: TreeEntry) -> str:
    return os.readlink(link.path)  # noqa: PTH115 -- the text as it is, Path would tidy it


def attributes(file: int | str) -> Iterator[tuple[str, bytes]]:
    """The extended attributes of a file or descriptor that images carry, sorted."""
    for name in ATTRIBUTES:
        with contextlib.suppress(OSError):  # it has none, or the file system
            yield name, os.getxattr(file, name, follow_symlinks=isinstance(file, int))


def copy(found: Iterable[TreeEntry], into: Path, *, time: int, public: bool = False) -> None:
    """Copy to the same names below `into`, all with modification time `time` (see `stamp`).

    `public` makes all readable by everybody, as installed programs are, whatever the caller's umask was.
    """
    directories = []
    into.mkdir(parents=True, exist_ok=True)
    for entry in found:
        target = into / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = (entry.mode & 0o111 and 0o755) or 0o644 if public else entry.mode
        if entry.kind == "directory":
            target.mkdir(exist_ok=True)
            directories.append((target, 0o755 if public else mode))
        elif entry.kind == "link":
            target.symlink_to(_target(entry))
            os.utime(target, (time, time), follow_symlinks=False)
        else:
            _copy_file(entry.path, target)
            stamp(target, time)
            target.chmod(mode)
    for target, mode in reversed(directories):
        target.chmod(mode)
        os.utime(target, (time, time))


def clone(found: Iterable[TreeEntry], into: Path, *, durable: bool = False) -> None:
    """Copy to the same names below `into`, with owner, permissions, attributes and times.

    `durable`: the contents are on the disk afterwards. Raises ProjectError, OSError.
    """
    into.mkdir(parents=True, exist_ok=True)
    directories = []
    for entry in found:
        target = into / entry.name
        if entry.kind == "directory":
            target.mkdir(exist_ok=True)
            directories.append((entry, target))
            continue
        if entry.kind == "link":
            target.symlink_to(_target(entry))
        else:
            _copy_file(entry.path, target)
        _make_alike(entry, target)
        if durable and entry.kind == "file":
            with target.open("rb") as opened:
                os.fsync(opened.fileno())
    for entry, target in reversed(directories):
        _make_alike(entry, target)


def _make_alike(entry: TreeEntry, target: Path) -> None:
    """The owner first: chown clears set-user-ID bits and capabilities."""
    os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
    found = os.lstat(entry.path)
    if entry.kind != "link":
        target.chmod(entry.mode)
        for name, value in attributes(entry.path):
            os.setxattr(target, name, value)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def stamp(file: Path, time: int) -> None:
    """Set a file's modification time to `time`, in seconds since the epoch, with nanoseconds derived from its content.

    Docker keeps a build's context, and takes a file of the same name, size and time for the same (fsutil's sameFile),
    even from another directory: with equal times an edit that keeps the size would not reach the image.
    """
    at = time * 10**9 + int.from_bytes(_sha256(file)[:8], "big") % 10**9
    os.utime(file, ns=(at, at))


def _copy_file(source: str, target: Path) -> None:
    import shutil  # not needed for a digest, which most calls ask for

    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise ProjectError(f"{source}: {error.strerror}") from error
