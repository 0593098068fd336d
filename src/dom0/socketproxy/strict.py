"""JSON of a request, read so that the Engine can see nothing in it that we have not.

The Engine's decoder (Go's encoding/json) takes keys in any case, Unicode's folding of `k` and `s` included, merges
objects that stand there twice and reads a single value as a list. So: UTF-8 only, no key twice in any case, keys
exactly as the model spells them, types exactly. What passes is encoded anew from the model; the client's own bytes
go nowhere.
"""

from __future__ import annotations

import json
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from dom0 import strict_json
from dom0.socketproxy.refusal import BAD_REQUEST, Refused, never
from dom0.socketproxy.requests import IGNORED

T = TypeVar("T", bound=Struct)


def read(raw: bytes, model: type[T]) -> T:
    """The request body as a `model`; an empty one is one without keys.

    A key that the model does not know is dropped where its value is empty (Go's clients send every key they have), and
    refused else. Raises Refused.
    """
    value = parse(raw) if raw.strip() else {}
    if not isinstance(value, dict):
        raise Refused(BAD_REQUEST, "the body is no JSON object")
    try:
        return msgspec.convert(_known(value, model, ""), model, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Refused(BAD_REQUEST, f"the body: {error}") from error


def parse(raw: bytes) -> Any:
    """Raises Refused."""
    try:
        value = strict_json.decode(raw, parse_int=_int64)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # else half of a surrogate pair is in it
    except (ValueError, RecursionError) as error:
        raise Refused(BAD_REQUEST, f"the body is no JSON as the Engine would read it: {error}") from error
    return value


def _int64(text: str) -> int:
    if not -(2**63) <= (number := int(text)) < 2**63:
        raise ValueError(f"{text} is too large")
    return number


def _known(value: Any, type_: Any, path: str) -> Any:
    """`value` without the empty keys that `type_` does not know and without null. Raises Refused for other keys."""
    if isinstance(value, list):
        inner = _item_type(type_)
        return [_known(item, inner, f"{path}[]") for item in value]
    if not isinstance(value, dict):
        return value
    model = _struct_of(type_)
    if model is None:
        inner = _item_type(type_)
        is_list = get_origin(inner) in (list, tuple)
        empty: Any = {} if _struct_of(inner) is not None else [] if is_list else None  # what null means to Go
        return {key: _known(empty if item is None else item, inner, f"{path}.{key}") for key, item in value.items()}
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(model)}
    known = {}
    for key, item in value.items():
        place = f"{path}.{key}" if path else key
        if key in fields:
            if item is not None:
                known[key] = _known(item, fields[key], place)
        elif not is_empty(item) and key not in IGNORED.get(model, ()):
            raise never(place, item)
    return known


def is_empty(value: object) -> bool:
    """Whether it says no more than a key that is left out."""
    return value in (None, "", 0, False) or value in ([], {})


def _options(type_: Any) -> tuple[Any, ...]:
    """Of a union; else the type itself."""
    return get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)


def _struct_of(type_: Any) -> type[Struct] | None:
    for option in _options(type_):
        if isinstance(option, type) and get_origin(option) is None and issubclass(option, Struct):
            return option
    return None


def _item_type(type_: Any) -> Any:
    """Of the items of a list or of the values of a mapping."""
    for option in _options(type_):
        if get_origin(option) in (list, tuple, dict):
            return get_args(option)[-1 if get_origin(option) is dict else 0]
    return None
