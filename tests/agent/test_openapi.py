"""The description of the API, held against OpenAPI's own schema; against a real agent in tests/machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from dom0.agent.api import ROUTES
from dom0.agent.openapi import describe
from dom0.agent.report import difference
from dom0.agent.status import ImageId
from dom0.testing.fake_agent import make_status

SCHEMA = json.loads(Path(__file__).with_name("openapi-3.1.json").read_bytes())  # as the OpenAPI Initiative gives it out


@pytest.fixture(scope="module")
def described() -> Any:
    return json.loads(msgspec.json.encode(describe(ROUTES)))


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set[str]().union(*map(references, value)) if isinstance(value, list) else set()


def test_it_is_openapi(described: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(described)
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_it_has_every_route_with_words_and_a_name_of_its_own(described: Any) -> None:
    paths = described["paths"]
    operations = {f"{method.upper()} {path}": of for path in paths for method, of in paths[path].items()}
    assert operations.keys() == ROUTES.keys()
    assert len({of["operationId"] for of in operations.values()}) == len(ROUTES)
    for route, of in operations.items():
        assert of["summary"], route
        captured = {one["name"] for one in of.get("parameters", ()) if one["in"] == "path"}
        assert captured == set(re.findall(r"{(\w+)}", route)), route


def test_what_it_refers_to_is_there_and_nothing_else_is(described: Any) -> None:
    prefix = "#/components/schemas/"
    assert {name.removeprefix(prefix) for name in references(described)} == described["components"]["schemas"].keys()


def test_what_a_request_says_by_its_path_is_no_field_of_its_body(described: Any) -> None:
    rewire = described["components"]["schemas"]["Rewire"]
    assert "do" not in rewire["properties"]
    assert rewire["required"] == ["to"]


def test_a_status_may_be_told_by_its_differences(described: Any) -> None:
    status = make_status()
    content = described["paths"]["/v1/watch"]["get"]["responses"]["200"]["content"]
    schema = content["application/x-ndjson"]["schema"] | {"components": described["components"]}
    for line in (status, difference(status, make_status(converged=False))):
        jsonschema.Draft202012Validator(schema).validate(json.loads(msgspec.json.encode(line)))


def test_nothing_in_it_is_no_json() -> None:
    json.dumps(describe(ROUTES), allow_nan=False)


@pytest.mark.parametrize(("text", "is_one"), [("sha256:" + "a" * 64, True), ("sha256:" + "a" * 64 + "\n", False)])
def test_patterns_mean_the_same_for_every_reader(text: str, is_one: bool) -> None:
    r"""In ECMAScript, which JSON Schema speaks, `\Z` is a letter, and in Python `$` matches before a line break."""
    schema = msgspec.json.schema(ImageId)
    assert "\\Z" not in json.dumps(describe(ROUTES))
    assert bool(re.search(schema["pattern"], text)) == is_one
