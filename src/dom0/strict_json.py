"""JSON read so that no other reader can see anything else in it: Go's encoding/json takes keys in any case."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn


def decode(raw: bytes, *, parse_int: Callable[[str], int] = int) -> Any:
    """UTF-8 alone, and no key twice in any case. Raises ValueError, RecursionError."""
    return json.loads(raw.decode(), object_pairs_hook=_unique, parse_int=parse_int, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: set[str] = set()
    for key, _ in pairs:
        folded = key.casefold()
        if folded in seen:
            raise ValueError(f"{key!r} is there twice")
        seen.add(folded)
    return dict(pairs)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
