"""Plain data → the structs of the model, with a refusal that names the key and what was probably meant. No I/O."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from dom0.compose.machine import KEY
from dom0.compose.places import Path, Places, Refusal, did_you_mean, refuse

T = TypeVar("T")

_AT = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`$", re.DOTALL)
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


def decode(data: Any, kind: type[T], path: Path, places: Places, *, ours: bool = False) -> T:
    """`ours`: the shape is dom0's own; otherwise Compose has accepted it, so an unknown key is one that we lack.

    Numbers may come as text: Compose prints byte sizes so, and `${PORT}` is one. Raises ProjectError.
    """
    try:
        return msgspec.convert(data, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refuse([_refusal(str(error), kind, path, ours=ours)], places) from error


def _refusal(message: str, kind: type, path: Path, *, ours: bool) -> Refusal:
    at = _AT.search(message)
    steps = tuple(name or index.replace("...", "*") for name, index in _STEP.findall(at["path"])) if at else ()
    text = message[: at.start()] if at else message
    if unknown := _UNKNOWN.match(text):
        where = (*path, *steps, unknown["field"])
        if ours or KEY in steps:
            return Refusal(where, "no such key", did_you_mean(unknown["field"], _keys(kind, steps)))
        return Refusal(where, "not supported yet", "leave it out: this Docker Compose knows it, this dom0 does not")
    if expected := _EXPECTED.match(text):
        wanted = " or ".join(_TYPES.get(word, word) for word in expected["wanted"].split(" | ") if word != "null")
        found = f", not {_TYPES.get(expected['found'], expected['found'])}" if expected["found"] else ""
        return Refusal((*path, *steps), f"has to be {wanted}{found}")
    return Refusal((*path, *steps), text)


def _keys(kind: type, steps: tuple[str, ...]) -> list[str]:
    shape: Any = msgspec.inspect.type_info(kind)
    for step in steps:
        shape = _step(_struct(shape), step)
    return [field.encode_name for field in getattr(_struct(shape), "fields", ())]


def _struct(shape: Any) -> Any:
    """The struct among the choices of an optional."""
    choices = getattr(shape, "types", (shape,))
    return next((choice for choice in choices if isinstance(choice, msgspec.inspect.StructType)), shape)


def _step(shape: Any, step: str) -> Any:
    for field in getattr(shape, "fields", ()):
        if field.encode_name == step:
            return field.type
    return getattr(shape, "item_type", getattr(shape, "value_type", shape))
