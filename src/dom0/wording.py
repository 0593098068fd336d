"""How a refusal of what came from outside is worded: what was probably meant, which shape was expected. No I/O."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from dom0.printable import printable

_LONGEST = 2000  # characters of one message
_AT = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`$", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]*)`(?:, got `(?P<found>[^`]*)`)?")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "left empty",
}


class Flaw(msgspec.Struct, frozen=True):
    """`steps` lead to it from the top of the document; `unknown`: it is a key that the shape does not have; `missing`:
    one that the document lacks.
    """

    steps: tuple[str, ...]
    what: str
    hint: str = ""
    unknown: bool = False
    missing: bool = False


def flaw(error: msgspec.ValidationError, kind: type) -> Flaw:
    """What msgspec found when it read a document as `kind`."""
    message = str(error)
    at = _AT.search(message)
    steps = tuple(name or index.replace("...", "*") for name, index in _STEP.findall(at["path"])) if at else ()
    text = message[: at.start()] if at else message
    if unknown := _UNKNOWN.match(text):
        hint = did_you_mean(unknown["field"], keys_at(kind, steps))
        return Flaw((*steps, unknown["field"]), "no such key", hint, unknown=True)
    if missing := _MISSING.match(text):
        hint = f"write {missing['field']}: and what it is to be"
        return Flaw((*steps, missing["field"]), "is missing", hint, missing=True)
    if expected := _EXPECTED.match(text):
        wanted = " or ".join(_TYPES.get(word, word) for word in expected["wanted"].split(" | ") if word != "null")
        found = f", not {_TYPES.get(expected['found'], expected['found'])}" if expected["found"] else ""
        return Flaw(steps, f"has to be {wanted}{found}")
    key, _, rest = text.partition(": ")  # as a shape's own check says it
    return Flaw((*steps, key), rest) if rest and key in keys_at(kind, steps) else Flaw(steps, text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a key that is not known; the whole choice where nothing is near and the choice is short."""
    choice = sorted(known)
    near = difflib.get_close_matches(word[:100], choice, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(choice)}" if 0 < len(choice) <= 12 else ""


def excerpt(text: str) -> str:
    """`text` as a terminal may get it, without its middle where it is endless."""
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def keys_at(kind: type, steps: tuple[str, ...]) -> list[str]:
    """The keys of the struct that `steps` lead to from `kind`; indexes of lists among them are skipped."""
    shape = _mapping(msgspec.inspect.type_info(kind))
    for step in steps:
        if not step.isdigit():
            fields = {field.encode_name: field.type for field in getattr(shape, "fields", ())}
            shape = _mapping(fields.get(step, getattr(shape, "value_type", None)))
    return [field.encode_name for field in getattr(shape, "fields", ())]


def _mapping(shape: Any) -> Any:
    """The struct or mapping that a key has as its value, or as the entries of a list, whatever short forms it has."""
    while hasattr(shape, "item_type"):
        shape = shape.item_type
    mappings = (msgspec.inspect.StructType, msgspec.inspect.DictType)
    return next((choice for choice in getattr(shape, "types", ()) if isinstance(choice, mappings)), shape)
