"""Grants of which only some are said, as a refusal names the smallest: put together, and written as YAML. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

_WORD = re.compile(r"[a-zA-Z_]+")
_NO_TEXT = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")  # to YAML


def merge(one: S, other: S) -> S:
    """The smallest grants that allow what either allows."""
    larger: dict[str, Any] = {}
    for field in msgspec.structs.fields(one):
        both = first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, msgspec.Struct):
            larger[field.name] = merge(first, second)
        elif isinstance(first, tuple):
            larger[field.name] = tuple(dict.fromkeys((*first, *second)))
        elif field.default in both:
            larger[field.name] = second if first == field.default else first
        else:
            larger[field.name] = max(both)
    return type(one)(**larger)


def lines(granted: msgspec.Struct) -> list[str]:
    """A file of them, with what is more than nothing granted: `capabilities: [NET_ADMIN]`."""
    return [f"{key}: {_flow(value)}" for key, value in _beyond_default(granted).items()]


def flat(granted: msgspec.Struct, before: str = "") -> Iterator[tuple[str, Any]]:
    """All of them, defaults too, by their names in the documentation: `images.use`, `containers`."""
    for field in msgspec.structs.fields(granted):
        value = getattr(granted, field.name)
        if isinstance(value, msgspec.Struct):
            yield from flat(value, f"{before}{field.encode_name}.")
        else:
            yield f"{before}{field.encode_name}", value


def one_line(granted: msgspec.Struct) -> str:
    return ", ".join(lines(granted))


def _beyond_default(granted: msgspec.Struct) -> dict[str, Any]:
    default = type(granted)()
    found = {}
    for field in msgspec.structs.fields(granted):
        value = getattr(granted, field.name)
        if value != getattr(default, field.name):
            found[field.encode_name] = _beyond_default(value) if isinstance(value, msgspec.Struct) else value
    return found


def _flow(value: Any) -> str:
    """YAML on one line; text in quotes unless it is a word that stands for itself."""
    match value:
        case dict():
            return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
        case tuple():
            return f"[{', '.join(map(_flow, value))}]"
        case str() if _WORD.fullmatch(value) and value.casefold() not in _NO_TEXT:
            return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
