"""Reads the files of a project before Compose does: its Compose files, and all files that they reference.

Compose would open whatever a file names: a pipe that never ends, a device, a file outside the directory that becomes
the image. Here each one is a regular file of limited size inside the project, or it is refused, and Compose gets copies
of what was read. Compose itself replaces a variable in a path before (`Parser.interpolate`), and the copy has the value
in its place: `docker compose config` opens no path that was not checked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import os
import posixpath
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dom0.compose import above
from dom0.compose.complaints import understand
from dom0.compose.findings import Finding, Locations, refuse
from dom0.compose.parser import Parser, Rejected, View
from dom0.compose.references import NamedFile, extensions, references, services, unfit
from dom0.compose.source import MAX_BYTES, SourceFile, read_source
from dom0.compose.tags import Reset
from dom0.errors import ProjectError

LAYERS = "compose.d"
STAGED = f"{LAYERS}/.staged"  # in an image: a compose.yaml beside it is an ordinary file of the project
MAX_TOTAL = 8 * 1024 * 1024
MAX_FILES = 1024
MAX_NESTED = 32  # depth of includes and extends

_CHOOSES = re.compile(rb"\s*(export\s+)?COMPOSE_FILE\s*[=:]")
BASES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_MAKE = "make it, or take it out here"
_OWN = "a machine is made of the project's directory, and of files above it only in the same git work tree"
_OVERRIDES = tuple(name.replace(".y", ".override.y") for name in ("compose.yml", "compose.yaml", *BASES[2:]))


class ProjectFiles(msgspec.Struct):
    """`layers` are the Compose files in their order, as paths below `root`; `sources` those and what they include or
    extend. `copies` is all that Compose may open, by paths below `root`.
    """

    root: Path
    layers: tuple[str, ...] = ()
    copies: dict[str, bytes] = {}
    sources: list[SourceFile] = []
    services: set[str] = set()  # names of all, also of those that a profile keeps out
    extends: dict[str, dict[str, tuple[str, str]]] = {}  # see Locations
    only_extended: set[str] = set()  # names of sources

    @property
    def locations(self) -> Locations:
        lowest_first = sorted(self.sources, key=lambda source: source.name not in self.only_extended)
        return Locations({source.name: source.lines for source in lowest_first}, self.extends)

    @property
    def documents(self) -> Iterator[dict[str, Any]]:
        """Of all sources."""
        for source in self.sources:
            yield from source.documents

    @property
    def layer_documents(self) -> Iterator[dict[str, Any]]:
        """Of the layers alone, lowest first."""
        for source in self.sources:
            if source.name in self.layers:
                yield from source.documents


async def read_project(root: Path, parser: Parser, view: View) -> ProjectFiles:
    """Raises ProjectError. Nothing outside `root` is opened but what the image will hold, see above.py."""
    try:
        files = ProjectFiles(await asyncio.to_thread(root.resolve))
        base = await asyncio.to_thread(_standard_files, root)
    except OSError as error:
        raise ProjectError(f"{root}: {unreadable(error)}") from error
    reader = _Reader(files, parser, view)
    dotenv = await reader.dotenv(files.root)
    chosen = () if base[:1] and base[0].startswith(f"{LAYERS}/") else await reader.chosen_by(dotenv)
    files.layers = chosen or base
    if not files.layers:
        raise ProjectError(f"{root}: there is no compose.yaml", hint="dom0 init makes one")
    for layer in files.layers:
        await reader.read(files.root / layer, files.root, dotenv)
    return files


def _standard_files(root: Path) -> tuple[str, ...]:
    """The Compose files below `root` in the order in which they are merged, by their names. Raises ProjectError."""
    if not root.is_dir():
        what = "is not a directory" if os.path.lexists(root) else "there is no such directory"
        raise ProjectError(f"{root}: {what}", hint="a project is a directory with a compose.yaml in it")
    base = next((name for name in BASES if os.path.lexists(root / name)), "")
    directory = root / LAYERS
    found = sorted(directory.iterdir()) if directory.is_dir() else ()
    layers = tuple(f"{LAYERS}/{path.name}" for path in found if path.suffix in (".yaml", ".yml"))
    if layers and base and not (root / STAGED).exists():
        hint = f"keep {base} in a project, or the files in {LAYERS} in an image"
        raise ProjectError(f"{root}: has both {base} and {LAYERS}", hint=hint)
    if layers or not base:
        return layers
    override = next((name for name in _OVERRIDES if os.path.lexists(root / name)), "")
    return (base, override) if override else (base,)


class Irregular(OSError):
    """A directory, a pipe, a socket or a device."""


def open_regular(path: Path, *, inside: Path = Path("/")) -> BufferedReader:
    """Open a file for reading without blocking. Raises OSError; Irregular for what is no regular file, or is not below
    `inside` once it is open.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(descriptor, inside)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(descriptor: int, inside: Path) -> None:
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise Irregular(0, f"is {kinds.get(kind, 'a device')}, not a file")
    if inside != Path("/") and not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(inside):
        raise Irregular(0, "is a symbolic link that leads out of the project")


def read_regular(path: Path, *, name: str, inside: Path = Path("/")) -> bytes:
    """The bytes of a regular file; `name` is how messages call it. Raises ProjectError."""
    try:
        with open_regular(path, inside=inside) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
    except OSError as error:
        raise ProjectError(f"{name}: {unreadable(error)}", hint=way_out(error, path)) from error
    if (size := max(size, len(content))) > MAX_BYTES:
        hint = "is it the right file? Data that a container reads is bound under volumes:"
        raise ProjectError(f"{name}: has {size} bytes, it may have at most {MAX_BYTES}", hint=hint)
    return content


def unreadable(error: OSError) -> str:
    words = {
        errno.ENOENT: "there is no such file",
        errno.EACCES: "may not be read",
        errno.ELOOP: "is a symbolic link that leads back to itself",
        errno.ENAMETOOLONG: "the name is too long",
        errno.ENOTDIR: "there is no such file",
        errno.ENXIO: "is a socket or a device, not a file",
    }
    return words.get(error.errno or 0, str(error.strerror or error))


Variables = tuple[bytes, ...]
"""Contents of env files, the later one stands above."""


def way_out(error: OSError, path: Path) -> str:
    """What to do about a file that cannot be read; `path` is where it should be."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        with contextlib.suppress(OSError):
            there = [other.name for other in path.parent.iterdir()]
            if near := difflib.get_close_matches(path.name, there, n=1, cutoff=0.8):
                return f"did you mean {near[0]}? Else {_MAKE}"
        return _MAKE
    if error.errno == errno.EACCES:
        return "give it to whoever runs dom0, or run dom0 with sudo"
    if error.errno == errno.EISDIR or "is a directory" in str(error.strerror):
        return "name a file in that directory"
    return "name another file" if error.errno == errno.ENAMETOOLONG else "put a file of text there"


class _Reader:
    """Follows references. Each use of a file adds to the total size, as it does in Compose's output."""

    def __init__(self, files: ProjectFiles, parser: Parser, view: View) -> None:
        self._files = files
        self._parser = parser
        self._view = view
        self._seen: set[tuple[Path, Path, Variables, bool]] = set()
        self._originals: dict[str, bytes] = {}
        self._total = 0
        self._nested = 0

    async def dotenv(self, directory: Path) -> Variables:
        """The `.env` in there, if there is one. Compose takes a dangling link for none."""
        file = directory / ".env"
        try:
            self._find(file).stat()
        except OSError as error:
            if error.errno == errno.ENOENT:
                return ()
        return (await self._content(file),)

    async def chosen_by(self, dotenv: Variables) -> tuple[str, ...]:
        """The Compose files that COMPOSE_FILE names in the project's `.env`."""
        if not any(b"COMPOSE_FILE" in content for content in dotenv):
            return ()
        numbered = enumerate(b"\n".join(dotenv).splitlines(), 1)
        line = next((number for number, text in numbered if _CHOOSES.match(text)), 0)
        where = Finding(("COMPOSE_FILE",), "", file=".env", line=line)
        named, separator = await self._interpolate(
            ["${COMPOSE_FILE-}", "${COMPOSE_PATH_SEPARATOR-}"], dotenv, [where] * 2
        )
        layers = []
        for name in named.split(separator or ":") if named else ():
            path = self._path(name, self._files.root)
            if not path.is_relative_to(self._files.root):
                raise self._refused(where, f"{name} is outside the project", f"{_OWN}: move it there")
            try:
                await self._content(path, is_compose=True)
            except ProjectError as error:
                raise self._refused(where, error.message, error.hint) from error
            layers.append(self._name(path))
        if layers and "/" in layers[0]:
            hint = f"leave COMPOSE_FILE out and write a compose.yaml with include: [{layers[0]}] into the project"
            raise self._refused(where, f"{layers[0]} is in another directory than .env, where its paths start", hint)
        return tuple(layers)

    async def read(self, path: Path, base: Path, variables: Variables, *, extended: bool = False) -> None:
        """`extended`: other files extend its services, which are none of the project."""
        content = await self._content(path, is_compose=True)
        if (path, base, variables, extended) in self._seen:
            return
        self._seen.add((path, base, variables, extended))
        self._nested += 1
        if self._nested > MAX_NESTED:
            what = f"more than {MAX_NESTED} Compose files include or extend each other"
            raise ProjectError(f"{self._name(path)}: {what}", hint="put the services of some of them into one file")
        may_be_empty = self._name(path) != self._files.layers[-1] or any(self._files.layer_documents)
        source = await asyncio.to_thread(read_source, self._name(path), content, may_be_empty=may_be_empty)
        if source.name not in (known.name for known in self._files.sources):
            self._files.sources.append(source)
            self._files.only_extended |= {source.name} if extended else set()
        elif not extended:
            self._files.only_extended.discard(source.name)
        found = [reference for document in source.documents for reference in references(document)]
        values = await self._fill_in(source, found, variables)
        defined = (item for document in source.documents for item in services(document))
        for name, service in () if extended else defined:
            if service is Reset:
                self._files.services.discard(name)
            else:
                self._files.services.add(name)
        for name, base_name, file in (item for document in source.documents for item in extensions(document)):
            of = self._name(self._path(values.get(file, file), base)) if file else source.name
            self._files.extends.setdefault(source.name, {})[name] = (of, base_name)
        for reference in found:
            filled = reference.filled_in(values)
            needed = filled.required and not (extended and not filled.is_compose)
            await self._follow(source, filled, base, variables, needed=needed)
        self._nested -= 1

    async def _fill_in(self, source: SourceFile, found: Sequence[NamedFile], variables: Variables) -> dict[str, str]:
        """The texts that have variables in them, and their values. Compose's copy of the file has the values."""
        wanted = {text: self._at(source, reference) for reference in found for text in reference.texts if "$" in text}
        filled = await self._interpolate(list(wanted), variables, list(wanted.values()))
        values = dict(zip(wanted, filled, strict=True))
        if values:
            copy = source.with_values(values).encode()
            if self._files.copies[source.name] not in (source.text.encode(), copy):
                hint = "use two files, or write the paths in it out"
                raise ProjectError(f"{source.name}: is read twice, and its variables differ", hint=hint)
            self._files.copies[source.name] = copy
        return values

    async def _interpolate(self, texts: Sequence[str], variables: Variables, at: Sequence[Finding]) -> Sequence[str]:
        if not texts:
            return ()
        try:
            return await self._parser.interpolate(self._view, texts, variables)
        except Rejected as rejected:
            told = understand(rejected.words, ())
            number = int(told.path[1]) if len(told.path) > 1 and told.path[1].isdigit() else 0
            raise self._refused(at[number], told.what, told.hint) from rejected

    async def _follow(
        self, source: SourceFile, reference: NamedFile, base: Path, variables: Variables, *, needed: bool
    ) -> None:
        where = self._at(source, reference)
        if not reference.file and not reference.is_compose and not needed:
            return
        if problem := unfit(reference):
            raise self._refused(where, *problem)
        path = self._path(reference.file, base)
        if str(path) == os.devnull and not reference.is_compose:
            return
        if not self._may_take(path):
            raise self._refused(where, f"{reference.file} is outside the project", self._cure(reference, path, base))
        if not needed and not await asyncio.to_thread(os.path.lexists, self._find(path)):
            return
        try:
            if reference.kind == "include":
                await self._include(path, reference, base, variables)
            elif reference.kind == "extends":
                await self.read(path, path.parent, variables, extended=True)
            else:
                await self._content(path)
        except ProjectError as error:
            own = f"{self._name(path)}: "
            if error.message.startswith(own):  # about the whole file: say which key names it
                raise self._refused(where, error.message, error.hint) from error
            raise

    async def _include(self, path: Path, reference: NamedFile, base: Path, variables: Variables) -> None:
        inner = self._path(reference.directory or posixpath.dirname(reference.beside), base)
        if reference.env_files is None:
            own = await self.dotenv(inner) if self._may_take(inner / ".env") else ()
        else:
            files = [self._path(file, base) for file in reference.env_files if file != os.devnull]
            own = tuple([await self._content(file) for file in files])
        await self.read(path, inner, tuple(dict.fromkeys((*own, *variables))))

    def _path(self, written: str, base: Path) -> Path:
        """Where a path leads that is written so; `${PWD}` is the project as Compose sees it."""
        inside = self._view.inside(written)
        return Path(os.path.normpath(base / written if inside is None else self._files.root / inside))

    async def _content(self, path: Path, *, is_compose: bool = False) -> bytes:
        name = self._name(path)
        if name in self._files.copies:
            content = self._originals[name]
        else:
            content = await asyncio.to_thread(self._read_inside, self._find(path), name, is_compose=is_compose)
            self._files.copies[name] = self._originals[name] = content
        self._total += len(content)
        if self._total > MAX_TOTAL or len(self._originals) > MAX_FILES:
            most = f"{MAX_FILES} files and {MAX_TOTAL} bytes together"
            hint = "a file counts each time it is named: put what services share into few small ones"
            raise ProjectError(f"{name}: the project is too large: at most {most} of Compose files", hint=hint)
        return content

    def _read_inside(self, path: Path, name: str, *, is_compose: bool) -> bytes:
        try:
            real = path.resolve(strict=True)
        except OSError as error:
            raise ProjectError(f"{name}: {unreadable(error)}", hint=way_out(error, path)) from error
        except RuntimeError as error:  # Python before 3.13 tells a symlink loop so
            hint = "put the file itself there"
            raise ProjectError(f"{name}: is a symbolic link that leads back to itself", hint=hint) from error
        inside = self._files.root if real.is_relative_to(self._files.root) else path.parent
        is_own = path.is_relative_to(self._files.root) and path.parent.resolve() == path.parent
        is_there = self._find(real) == real  # else a .dom0-parent of the project stands for what is above
        if is_compose and is_own and is_there and above.may_take(self._files.root, self._name(real)):
            inside = real.parent  # the image has it as a file
        if not real.is_relative_to(inside):
            copy = shlex.join(["cp", "--remove-destination", str(real), str(path)])
            can_copy = real.is_file() and path.parent.resolve() == path.parent  # not where it is already
            hint = f"{_OWN}: put the file itself there" + (f", {copy}" if can_copy else "")
            raise ProjectError(f"{name}: is a symbolic link that leads out of the project", hint=hint)
        return read_regular(real, name=name, inside=inside)

    def _may_take(self, path: Path) -> bool:
        return path.is_relative_to(self._files.root) or above.may_take(self._files.root, self._name(path))

    def _cure(self, reference: NamedFile, path: Path, base: Path) -> str:
        """What to do about a file at `path`, outside of the project."""
        if reference.is_compose:
            return f"{_OWN}: put a copy of it there, with the files that it names"
        name = path.name if not os.path.lexists(base / path.name) else f"copy-of-{path.name}"
        if not os.path.lexists(path):
            return f"{_OWN}: make {base / name}, and write {name} here"
        return f"{_OWN}: {shlex.join(['cp', str(path), str(base / name)])}, and write {name} here"

    def _find(self, path: Path) -> Path:
        return above.find(self._files.root, above.inner(self._name(path)))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._files.root)

    def _at(self, source: SourceFile, reference: NamedFile) -> Finding:
        line = Locations({"": source.lines}).find(reference.path)[1]
        return Finding(reference.path, "", file=source.name, line=line)

    def _refused(self, where: Finding, what: str, hint: str = "") -> ProjectError:
        return refuse([replace(where, what=what, hint=hint)], Locations({}))
