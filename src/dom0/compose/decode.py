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
        named = _named(found.steps, data, missing=found.missing)
        raise refuse([Finding((*path, *named), what, hint)], locations) from error


def _named(steps: KeyPath, data: Any, *, missing: bool) -> KeyPath:
    """`steps` with the names of entries in the place of `*`, where only one entry has the steps that follow, or lacks
    the last of them if that is `missing`.
    """
    if not steps:
        return ()
    step, rest = steps[0], steps[1:]
    if step == "*":
        names = [name for name, value in _entries(data).items() if _fits(rest, value, missing=missing)]
        step = names[0] if len(names) == 1 else step
    return (step, *_named(rest, _entries(data).get(step), missing=missing))


def _fits(steps: KeyPath, data: Any, *, missing: bool) -> bool:
    if missing and len(steps) == 1:
        return isinstance(data, dict) and steps[0] not in data
    if not steps:
        return True
    entries = ((name, value) for name, value in _entries(data).items() if steps[0] in ("*", name))
    return any(_fits(steps[1:], value, missing=missing) for _, value in entries)


def _entries(data: Any) -> dict[str, Any]:
    if isinstance(data, list):
        return {str(number): value for number, value in enumerate(data)}
    return {str(key): value for key, value in data.items()} if isinstance(data, dict) else {}
