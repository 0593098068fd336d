"""Where two readings of one project differ in what they mean to a machine. No I/O."""

from __future__ import annotations

from typing import Any

from dom0.compose.findings import KeyPath
from dom0.compose.model import Project, without_defaults

# What depends on where a project was read, and with which Compose.
_OF_THE_READING = (
    "compose_hashes",
    "compose_version",
    "config_files",
    "env_files",
    "extends",
    "lines",
    "opened",
    "secret_files",
    "warnings",
    "working_dir",
)


def difference(wanted: Project, found: Project) -> KeyPath | None:
    """The first key that differs, is missing or is extra. `build` of services is not compared."""
    readings = [without_defaults(wanted), without_defaults(found)]
    for data in readings:
        for key in _OF_THE_READING:
            data.pop(key, None)
        for service in data.get("services", {}).values():
            service.pop("build", None)
    return _difference(readings[0], readings[1], ())


def _difference(wanted: Any, found: Any, path: KeyPath) -> KeyPath | None:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*wanted, *found]):
            if key not in wanted or key not in found:
                return (*path, key)
            if inner := _difference(wanted[key], found[key], (*path, key)):
                return inner
        return None
    if isinstance(wanted, list | tuple) and isinstance(found, list | tuple) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            if inner := _difference(one, other, (*path, str(number))):
                return inner
        return None
    return None if wanted == found else path
