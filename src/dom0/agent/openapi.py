"""The agent's API as OpenAPI 3.1, made of its table of routes and of the types that their handlers ask for and answer.
Pure. Nothing about a single route is said here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import msgspec

from dom0 import __version__
from dom0.agent.route import LINES, Lines, Route
from dom0.http.server import JSON, Refusal

REFERENCE = "#/components/schemas/"
CAPTURED: Mapping[str, dict[str, Any]] = {"number": {"type": "integer", "minimum": 0}}  # in a path; all else is text


def describe(routes: Mapping[str, Route]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for key, route in routes.items():
        method, path = key.split()
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, route)
    asked = [route.asks for key, route in routes.items() if route.asks is not None and key.startswith("POST")]
    documents = [*asked, *(one for route in routes.values() for one in _documents(route)[0]), Refusal]
    _, schemas = msgspec.json.schema_components(documents, ref_template=f"{REFERENCE}{{name}}")
    schemas |= {of.__name__: _without_tag(of, schemas[of.__name__]) for of in asked}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dom0",
            "summary": "The agent of a machine, on its unix socket",
            "description": "docs/reference/api.md describes every field.",
            "version": __version__,
        },
        "servers": [{"url": "http://dom0", "description": "at the unix socket /run/dom0/dom0.sock"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(method: str, path: str, route: Route) -> dict[str, Any]:
    words = [part for part in path.split("/")[2:] if not part.startswith("{")]
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W", "_", "_".join(words)),
        "summary": (route.handler.__doc__ or "").strip(),
        "tags": [route.access.name.lower()],
        "responses": {**_answer(route), "default": {"description": "A refusal.", "content": _content(JSON, Refusal)}},
    }
    if route.command:
        operation["description"] = f"As `{route.command}`."
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": CAPTURED.get(name, {"type": "string", "minLength": 1})}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if route.asks is not None and method == "GET":
        parameters += _parameters(route.asks)
    elif route.asks is not None:
        operation["requestBody"] = {"content": _content(JSON, route.asks)}
    return operation | ({"parameters": parameters} if parameters else {})


def _answer(route: Route) -> dict[str, Any]:
    documents, is_stream = _documents(route)
    if documents == (NoneType,):
        return {str(HTTPStatus.NO_CONTENT): {"description": "It was done."}}
    description = "Documents, one JSON a line; this is one of them." if is_stream else "The answer."
    content = _content(LINES if is_stream else JSON, *documents)
    return {str(HTTPStatus.OK): {"description": description, "content": content}}


def _documents(route: Route) -> tuple[tuple[Any, ...], bool]:
    """What it answers, one of them, and whether that are many, one a line."""
    is_stream = get_origin(route.answers) is Lines
    document = get_args(route.answers)[0] if is_stream else route.answers
    return (get_args(document) if isinstance(document, UnionType) else (document,)), is_stream


def _content(media_type: str, *documents: Any) -> dict[str, Any]:
    schemas, _ = msgspec.json.schema_components(documents, ref_template=f"{REFERENCE}{{name}}")
    return {media_type: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}}}


def _parameters(asks: Any) -> list[dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components((asks,), ref_template=f"{REFERENCE}{{name}}")
    found = _without_tag(asks, components[schema["$ref"].removeprefix(REFERENCE)])
    required = found.get("required", ())
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            # without a default that JSON has no number for
            "schema": {key: value for key, value in of.items() if key != "default" or value != math.inf},
        }
        for name, of in found["properties"].items()
    ]


def _without_tag(of: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """It tells apart what is asked on one socket of an ambassador; a route says it by its path."""
    tag = of.__struct_config__.tag_field
    required = [name for name in schema.get("required", ()) if name != tag]
    properties = {name: field for name, field in schema["properties"].items() if name != tag}
    return schema | {"properties": properties, "required": required}
