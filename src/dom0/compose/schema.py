"""The JSON schema of a project's Compose files, for editors: the Compose Specification's, with `x-dom0` in its places.

`compose-spec.json` is the specification's own, as compose-go 2.4.8 has it (Apache-2.0). What is under `x-dom0` is made
of the types that read it, and says of each key what the reference does, where that is (it is in no image). It knows
shapes: what a value may be, and what else this dom0 refuses, `dom0 plan` says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import msgspec

from dom0.compose.x_dom0 import KEY, MachineSettings, ServiceSettings
from dom0.errors import Dom0Error
from dom0.package_data import find

SPECIFICATION = "compose-spec.json"
DRAFT = "http://json-schema.org/draft-07/schema#"  # the specification spells it in a way that few readers know
DEFINITIONS = "#/definitions/"
REFERENCE = "x-dom0.md"
_ROW = re.compile(r"^\| `(?P<key>[\w.-]+)` \| [^|]+ \| (?P<meaning>.+) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
_VARIABLE = r"\$"
_AS_TEXT = {  # `decode` takes them so, and a variable may stand there
    "integer": rf"^\s*[+-]?\d+\s*$|{_VARIABLE}",
    "number": rf"^\s*[+-]?[\d.]+([eE][+-]?\d+)?\s*$|{_VARIABLE}",
    "boolean": rf"^(true|True|TRUE|false|False|FALSE|0|1)$|{_VARIABLE}",
}


def project() -> dict[str, Any]:
    text = resources.files(__package__).joinpath(SPECIFICATION).read_bytes()
    schema: dict[str, Any] = msgspec.json.decode(text)
    sections, ours = msgspec.json.schema_components(
        (MachineSettings | None, ServiceSettings | None), ref_template=f"{DEFINITIONS}{KEY}.{{name}}"
    )
    definitions = schema["definitions"]
    schema["properties"][KEY], definitions["service"]["properties"][KEY] = sections
    definitions |= {f"{KEY}.{name}": _with_text(of) for name, of in ours.items()}
    meanings = _meanings()
    _explain(sections[0], KEY, definitions, meanings)
    _explain(sections[1], f"services.NAME.{KEY}", definitions, meanings)
    del schema["$id"]  # what is joined is not what has that name
    return schema | {"$schema": DRAFT, "title": "Compose file of a dom0 machine"}


def _with_text(schema: Any) -> Any:
    """Where a number, a boolean or one of some words may stand, also a text that becomes one."""
    if isinstance(schema, list):
        return [_with_text(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "enum" in schema:
        return {"anyOf": [schema, {"type": "string", "pattern": _VARIABLE}]}
    if pattern := _AS_TEXT.get(str(schema.get("type"))):
        return schema | {"type": [schema["type"], "string"], "pattern": pattern}
    return {key: value if key == "default" else _with_text(value) for key, value in schema.items()}


def _meanings() -> dict[str, str]:
    """What the reference says of each key, without its links."""
    text = ""
    with contextlib.suppress(Dom0Error):
        text = (find("docs/reference", "the reference is") / REFERENCE).read_text(encoding="utf-8")
    return {row["key"]: _LINK.sub(r"\1", row["meaning"]) for row in _ROW.finditer(text)}


def _explain(schema: Any, path: str, definitions: Mapping[str, Any], meanings: Mapping[str, str]) -> None:
    """Put them to the keys of what `schema` refers to, which is at `path`."""
    for name, inner in _references(schema, path):
        for key, field in definitions[name].get("properties", {}).items():
            if meaning := meanings.get(f"{inner}.{key}"):
                field["description"] = meaning
            _explain(field, f"{inner}.{key}", definitions, meanings)


def _references(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """Names of definitions, and where their keys are; an entry of a mapping is NAME."""
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one, path)
    elif isinstance(schema, dict):
        if isinstance(found := schema.get("$ref"), str):
            yield found.removeprefix(DEFINITIONS), path
        for word, more in (("anyOf", ""), ("items", ""), ("additionalProperties", ".NAME")):
            yield from _references(schema.get(word), f"{path}{more}")
