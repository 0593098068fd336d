"""Plain data → the structs of the model, with a refusal that names the key and what was probably meant. No I/O."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from dom0.compose.machine import KEY
from dom0.compose.places import Path, Places, Refusal, refuse
from dom0.wording import flaw

T = TypeVar("T")


def decode(data: Any, kind: type[T], path: Path, places: Places, *, ours: bool = False) -> T:
    """`ours`: the shape is dom0's own; otherwise Compose has accepted it, so an unknown key is one that we lack.

    Numbers may come as text: Compose prints byte sizes so, and `${PORT}` is one. Raises ProjectError.
    """
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refuse([_refusal(error, kind, path, ours=ours)], places) from error


def _refusal(error: msgspec.ValidationError, kind: type, path: Path, *, ours: bool) -> Refusal:
    found = flaw(error, kind)
    where = (*path, *found.steps)
    if found.unknown and not ours and KEY not in found.steps[:-1]:
        return Refusal(where, "not supported yet", "leave it out: this Docker Compose knows it, this dom0 does not")
    return Refusal(where, found.what, found.hint)
