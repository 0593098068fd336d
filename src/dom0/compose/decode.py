"""Plain data → the structs of the model, or an error that names the key and what was probably meant. No I/O."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from dom0.compose.findings import Finding, KeyPath, Locations, refuse
from dom0.compose.x_dom0 import KEY
from dom0.wording import flaw

T = TypeVar("T")


def decode(data: Any, kind: type[T], path: KeyPath, locations: Locations, *, ours: bool = False) -> T:
    """`ours`: the shape is dom0's own; otherwise Compose has accepted it, so an unknown key is one that we lack.

    Numbers may come as text: Compose prints byte sizes so, and `${PORT}` is one. Raises ProjectError.
    """
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        found = flaw(error, kind)
        what, hint = found.what, found.hint
        if found.unknown and not ours and KEY not in found.steps[:-1]:
            what, hint = "not supported yet", "leave it out: this Docker Compose knows it, this dom0 does not"
        elif not hint and KEY in (*path, *found.steps) and not what.startswith("has to be"):
            hint = "docs/reference/x-dom0.md shows what it takes"
        raise refuse([Finding((*path, *_named(found.steps, data)), what, hint)], locations) from error


def _named(steps: KeyPath, data: Any) -> KeyPath:
    """`steps` with the names of entries in the place of `*`, where only one entry has the steps that follow."""
    if not steps:
        return ()
    step, rest = steps[0], steps[1:]
    if step == "*":
        names = [name for name, value in _entries(data).items() if _has(rest, value)]
        step = names[0] if len(names) == 1 else step
    return (step, *_named(rest, _entries(data).get(step)))


def _has(steps: KeyPath, data: Any) -> bool:
    if not steps:
        return True
    return any(_has(steps[1:], value) for name, value in _entries(data).items() if steps[0] in ("*", name))


def _entries(data: Any) -> dict[str, Any]:
    if isinstance(data, list):
        return {str(number): value for number, value in enumerate(data)}
    return {str(key): value for key, value in data.items()} if isinstance(data, dict) else {}
