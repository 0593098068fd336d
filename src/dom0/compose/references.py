"""The files that a Compose file names: includes, extends, env_file, label_file. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dom0.compose.values import Override

_REMOTE = ("://", "git@", "oci:")


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that a Compose file names; `base` is the directory its path starts at.

    `inner` is where paths inside of it start: at its own directory unless `project_directory` says otherwise.
    """

    kind: str  # include, extends, env_file, label_file
    path: tuple[str, ...]
    file: str
    base: Path
    inner: Path | None = None
    required: bool = True

    @property
    def is_compose(self) -> bool:
        return self.kind in ("include", "extends")


def unfit(reference: Reference) -> tuple[str, str] | None:
    """What is wrong with naming such a file at all, and what to do."""
    if reference.file.startswith("~"):
        return f"{reference.file} is outside the project", "put the file into the project's directory"
    if not reference.is_compose:
        return None
    if "$" in reference.file:
        return f"{reference.file}: a variable cannot stand in this path", "write the path out"
    if any(mark in reference.file for mark in _REMOTE):
        what = f"{reference.file} is somewhere else, and a machine has to come up without a network"
        return what, "put a copy of it into the project"
    return None


def references(document: dict[str, Any], base: Path) -> Iterator[Reference]:
    """Every file that `document` names. What has another shape than it should is left to Compose to refuse."""
    for number, entry in enumerate(_list(document.get("include"))):
        yield from _include(_long(entry), ("include", str(number)), base)
    for name, service in services(document):
        if not isinstance(service, dict):
            continue
        path = ("services", name)
        extends = service.get("extends")
        if isinstance(extends, dict) and isinstance(extends.get("file"), str):
            yield Reference("extends", (*path, "extends", "file"), extends["file"], base)
        for kind in ("env_file", "label_file"):
            yield from _data_files(kind, service.get(kind), (*path, kind), base)


def _include(entry: dict[str, Any], path: tuple[str, ...], base: Path) -> Iterator[Reference]:
    files = [file for file in _list(entry.get("path")) if isinstance(file, str)]
    directory = entry.get("project_directory")
    inner = base / (directory if isinstance(directory, str) else Path(files[0]).parent if files else "")
    for file in files:
        yield Reference("include", path, file, base, inner)
    yield from _data_files("env_file", entry.get("env_file"), path, base)


def _data_files(kind: str, value: Any, path: tuple[str, ...], base: Path) -> Iterator[Reference]:
    for entry in map(_long, _list(value)):
        if isinstance(entry.get("path"), str):
            required = entry.get("required") is not False
            yield Reference(kind, path, entry["path"], base, required=required)


def services(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and definition of each service."""
    section = plain(document.get("services"))
    if isinstance(section, dict):
        yield from ((str(name), plain(service)) for name, service in section.items())


def plain(value: Any) -> Any:
    return value.value if isinstance(value, Override) else value


def _list(value: Any) -> list[Any]:
    value = plain(value)
    return value if isinstance(value, list) else [] if value is None else [value]


def _long(entry: Any) -> dict[str, Any]:
    """The long form of an entry that may be only a path."""
    entry = plain(entry)
    return {"path": entry} if isinstance(entry, str) else entry if isinstance(entry, dict) else {}
