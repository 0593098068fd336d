"""Reads the files of a project before Compose does: which ones are Compose files, and everything they draw in.

Compose would open whatever a file names: a pipe that never ends, a device, a file outside the directory that becomes
the image. Here each one is a regular file of bounded size inside the project, or it is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from dom0.compose.places import Places, Refusal, refuse
from dom0.compose.references import Reference, references, services, unfit
from dom0.compose.source import MAX_BYTES, Source, read_source
from dom0.compose.values import Reset
from dom0.errors import ProjectError

LAYERS = "compose.d"
MAX_TOTAL = 8 * 1024 * 1024
MAX_FILES = 128

_BASES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = tuple(name.replace(".y", ".override.y") for name in ("compose.yml", "compose.yaml", *_BASES[2:]))


@dataclass(slots=True)
class ProjectFiles:
    """`layers` are the Compose files in their order, paths below `root`; `sources` these and what they draw in."""

    root: Path
    layers: tuple[str, ...]
    sources: list[Source] = field(default_factory=list)
    services: set[str] = field(default_factory=set)  # names of all, also of those that a profile keeps out

    @property
    def places(self) -> Places:
        return Places({source.name: source.lines for source in self.sources})

    @property
    def documents(self) -> Iterator[dict[str, Any]]:
        """Of the layers, lowest first."""
        for source in self.sources:
            if source.name in self.layers:
                yield from source.documents


def read_project(root: Path) -> ProjectFiles:
    """Raises ProjectError. Nothing outside `root` is opened."""
    try:
        files = ProjectFiles(root.resolve(), find_layers(root))
    except OSError as error:
        raise ProjectError(f"{root}: {unreadable(error)}") from error
    reader = _Reader(files)
    for layer in files.layers:
        reader.read(files.root / layer, files.root)
    dotenv = files.root / ".env"
    if os.path.lexists(dotenv):
        reader.measure(dotenv)
    return files


def find_layers(root: Path) -> tuple[str, ...]:
    """The Compose files below `root` in the order in which they are merged. Raises ProjectError."""
    if not root.is_dir():
        what = "is not a directory" if os.path.lexists(root) else "there is no such directory"
        raise ProjectError(f"{root}: {what}", hint="a project is a directory with a compose.yaml in it")
    base = next((name for name in _BASES if os.path.lexists(root / name)), "")
    layers = _layers_directory(root)
    if layers and base:
        hint = f"keep {base} in a project, or the files in {LAYERS} in an image"
        raise ProjectError(f"{root}: there is {base} and there is {LAYERS}, which one is meant?", hint=hint)
    if layers:
        return layers
    if not base:
        raise ProjectError(f"{root}: there is no compose.yaml", hint="dom0 init makes one")
    override = next((name for name in _OVERRIDES if os.path.lexists(root / name)), "")
    return (base, override) if override else (base,)


def _layers_directory(root: Path) -> tuple[str, ...]:
    directory = root / LAYERS
    if not directory.is_dir():
        return ()
    names = sorted(path.name for path in directory.iterdir() if path.suffix in (".yaml", ".yml"))
    return tuple(f"{LAYERS}/{name}" for name in names)


class Irregular(OSError):
    """A directory, a pipe, a socket or a device."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading without ever waiting for it. Raises OSError, Irregular for what is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise Irregular(0, f"is {_kind(mode)}, not a file")


def read_regular(path: Path, *, name: str, most: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file; `name` is how messages call it. Raises ProjectError."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(most + 1) if size <= most else b""
    except OSError as error:
        raise ProjectError(f"{name}: {unreadable(error)}") from error
    if max(size, len(content)) > most:
        raise ProjectError(f"{name}: has {max(size, len(content))} bytes, {most} is the most it may have")
    return content


def unreadable(error: OSError) -> str:
    words = {
        errno.ENOENT: "there is no such file",
        errno.EACCES: "may not be read",
        errno.ELOOP: "is a symbolic link that leads round in circles",
        errno.ENAMETOOLONG: "the name is too long",
        errno.ENOTDIR: "there is no such file",
        errno.ENXIO: "is a socket or a device, not a file",
    }
    return words.get(error.errno or 0, str(error.strerror or error))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


class _Reader:
    """Follows references; every use of a file counts against the total, as it does in what Compose prints."""

    def __init__(self, files: ProjectFiles) -> None:
        self._files = files
        self._seen: set[Path] = set()
        self._total = 0
        self._count = 0

    def read(self, path: Path, base: Path, *, extended: bool = False) -> None:
        """`extended`: its services are only parts of others."""
        content = self._content(path)
        if path in self._seen:
            return
        self._seen.add(path)
        source = read_source(self._name(path), content)
        self._files.sources.append(source)
        for document in source.documents:
            if not extended:
                self._remember_services(document)
            for reference in references(document, base):
                self._follow(source, reference)

    def _remember_services(self, document: dict[str, Any]) -> None:
        for name, service in services(document):
            if service is Reset:
                self._files.services.discard(name)
            else:
                self._files.services.add(name)

    def measure(self, path: Path) -> None:
        self._content(path)

    def _follow(self, source: Source, reference: Reference) -> None:
        if not reference.is_compose and "$" in reference.file:
            return  # Compose finds out which one is meant, and says so if it is not there
        where = Refusal(reference.path, "", file=source.name, line=Places({"": source.lines}).find(reference.path)[1])
        if problem := unfit(reference):
            raise self._refused(where, *problem)
        path = Path(os.path.normpath(reference.base / reference.file))
        if not path.is_relative_to(self._files.root):
            hint = "the image holds the project's directory and nothing else: move the file there"
            raise self._refused(where, f"{reference.file} is outside the project", hint)
        if not reference.required and not os.path.lexists(path):
            return
        try:
            if reference.is_compose:
                self.read(path, reference.inner or path.parent, extended=reference.kind == "extends")
            else:
                self.measure(path)
        except ProjectError as error:
            own = f"{self._name(path)}: "
            if error.message.startswith(own):  # about the file as a whole: say who wants it
                raise self._refused(where, error.message, error.hint) from error
            raise

    def _content(self, path: Path) -> bytes:
        name = self._name(path)
        self._check_inside(path, name)
        content = read_regular(path, name=name)
        self._total += len(content)
        self._count += 1
        if self._total > MAX_TOTAL or self._count > MAX_FILES:
            most = f"{MAX_FILES} files of {MAX_TOTAL} bytes together"
            raise ProjectError(f"{name}: the Compose files draw in too much, {most} is the most they may")
        return content

    def _check_inside(self, path: Path, name: str) -> None:
        try:
            real = path.resolve(strict=True)
        except OSError as error:
            raise ProjectError(f"{name}: {unreadable(error)}") from error
        except RuntimeError as error:  # Python before 3.13 tells a symlink loop so
            raise ProjectError(f"{name}: is a symbolic link that leads round in circles") from error
        if not real.is_relative_to(self._files.root):
            hint = "the image holds the project's directory and nothing else: put the file itself there"
            raise ProjectError(f"{name}: is a symbolic link that leads out of the project", hint=hint)

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._files.root)

    def _refused(self, where: Refusal, what: str, hint: str = "") -> ProjectError:
        return refuse([Refusal(where.path, what, hint, where.file, where.line)], Places({}))
