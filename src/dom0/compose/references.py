"""The files that a Compose file names: includes, extends, env_file, label_file. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from dom0.compose.tags import Override

_REMOTE = ("://", "git@", "oci:")


class NamedFile(msgspec.Struct, frozen=True):
    """A file that a Compose file names, as it is written there, at the key `path`.

    Of an include: `directory` is where paths inside of the file start (if empty: where `beside` lies, the first file
    of the include), `env_files` hold variables for it (None: the `.env` of that directory).
    """

    kind: str  # include, extends, env_file, label_file
    path: tuple[str, ...]
    file: str
    required: bool = True
    directory: str = ""
    beside: str = ""
    env_files: tuple[str, ...] | None = None

    @property
    def is_compose(self) -> bool:
        return self.kind in ("include", "extends")

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is a path, each may have variables."""
        return (self.file, self.directory, self.beside, *(self.env_files or ()))

    def filled_in(self, values: Mapping[str, str]) -> NamedFile:
        """With each text that is a key of `values` replaced."""
        file, directory, beside, *env_files = (values.get(text, text) for text in self.texts)
        own = None if self.env_files is None else tuple(env_files)
        return replace(self, file=file, directory=directory, beside=beside, env_files=own)


def unfit(reference: NamedFile) -> tuple[str, str] | None:
    """What is wrong with naming such a file at all, and what to do."""
    if not reference.file:
        return "there is no path of a file", f"write one as text, or take {reference.kind} out"
    if reference.file.startswith("~"):
        return f"{reference.file} is outside the project", "put the file into the project's directory"
    if reference.is_compose and any(mark in reference.file for mark in _REMOTE):
        what = f"{reference.file} is somewhere else, and a machine has to come up without a network"
        return what, "put a copy of it into the project"
    return None


def references(document: dict[str, Any]) -> Iterator[NamedFile]:
    """Every file that `document` names. Values of a wrong shape are skipped: Compose refuses them."""
    for number, entry in enumerate(_list(document.get("include"))):
        yield from _include(_long(entry), ("include", str(number)))
    for name, service in services(document):
        if not isinstance(service, dict):
            continue
        extends = plain(service.get("extends"))
        file = plain(extends.get("file")) if isinstance(extends, dict) else None
        if isinstance(file, str):
            yield NamedFile("extends", ("services", name, "extends", "file"), file)
        needed = not service.get("profiles")  # Compose opens these only where the profile is enabled
        for kind in ("env_file", "label_file"):
            yield from _data_files(kind, service.get(kind), ("services", name, kind), needed=needed)


def _include(entry: dict[str, Any], path: tuple[str, ...]) -> Iterator[NamedFile]:
    files = [file for file in map(plain, _list(entry.get("path"))) if isinstance(file, str)]
    written = plain(entry.get("project_directory"))
    directory = written if isinstance(written, str) else ""
    env_files = tuple(file for file in map(plain, _list(entry.get("env_file"))) if isinstance(file, str))
    yield from _data_files("env_file", entry.get("env_file"), path)
    for file in files:
        yield NamedFile("include", path, file, directory=directory, beside=files[0], env_files=env_files or None)


def _data_files(kind: str, value: Any, path: tuple[str, ...], *, needed: bool = True) -> Iterator[NamedFile]:
    several = isinstance(plain(value), list)
    for number, entry in enumerate(map(_long, _list(value))):
        file = plain(entry.get("path"))
        file = "" if "path" in entry and not isinstance(file, str) else file
        if isinstance(file, str):
            where = (*path, str(number)) if several else path
            yield NamedFile(kind, where, file, required=needed and plain(entry.get("required")) is not False)


def services(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    section = plain(document.get("services"))
    if isinstance(section, dict):
        yield from ((str(name), plain(service)) for name, service in section.items())


def extensions(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Names of services, of those that they extend, and the files of those, "" for this one."""
    for name, service in services(document):
        extends = plain(service.get("extends")) if isinstance(service, dict) else None
        extends = {"service": extends} if isinstance(extends, str) else extends
        if isinstance(extends, dict):
            base, file = plain(extends.get("service")), plain(extends.get("file")) or ""
            if isinstance(base, str) and isinstance(file, str):
                yield name, base, file


def plain(value: Any) -> Any:
    return value.value if isinstance(value, Override) else value


def _list(value: Any) -> list[Any]:
    value = plain(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _long(entry: Any) -> dict[str, Any]:
    """The long form of an entry that may be only a path."""
    entry = plain(entry)
    return {"path": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
