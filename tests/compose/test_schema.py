"""The JSON schema for editors, against what dom0 loads and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dom0.compose import schema
from dom0.compose.values import SourceLoader
from dom0.testing.pages import CHECKOUT, page, pages

VALIDATOR = jsonschema.Draft7Validator(schema.project())
EXAMPLES = sorted(path for path in (CHECKOUT / "examples").rglob("*.yaml") if path.name != "farm.yaml")
CASES = Path(__file__).parent / "cases"


def plain(value: Any) -> Any:
    """As an editor has it: the keys of a mapping are text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def sections(document: Any) -> Iterator[dict[str, Any]]:
    """Every mapping under x-dom0 whose keys are dom0's."""
    owners = [document, *(document.get("services") or {}).values()]
    waiting = [owner["x-dom0"] for owner in owners if isinstance(owner, dict) and isinstance(owner.get("x-dom0"), dict)]
    while waiting:
        section = waiting.pop()
        yield section
        for key, value in section.items():
            inner = list(value.values()) if key in ("listen", "backup") else [value]
            waiting += [one for one in inner if isinstance(one, dict)]


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(VALIDATOR.schema)
    json.dumps(VALIDATOR.schema, allow_nan=False)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(CHECKOUT / "examples")))
def test_examples_are_as_it_says_and_a_typo_in_any_key_of_x_dom0_is_not(path: Path) -> None:
    document = plain(yaml.safe_load(path.read_text()))
    VALIDATOR.validate(document)
    for section in sections(document):
        for key in tuple(section):
            section[f"{key}x"] = section.pop(key)
            assert not VALIDATOR.is_valid(document), key
            section[key] = section.pop(f"{key}x")
    VALIDATOR.validate(document)


def test_an_editor_can_say_of_each_key_what_the_reference_says() -> None:
    definitions = VALIDATOR.schema["definitions"]
    assert (
        definitions["x-dom0.SshSettings"]["properties"]["port"]["description"] == "the port of the host it listens on"
    )
    assert "sftp:USER@HOST" in definitions["x-dom0.BackupSettings"]["properties"]["to"]["description"]
    documented = set(re.findall(r"^\| `([\w.-]+)` \|", page("docs/reference/x-dom0.md").text, re.MULTILINE))
    told = [
        field for name, of in definitions.items() if name.startswith("x-dom0.") for field in of["properties"].values()
    ]
    assert len(documented) > 60
    assert sum("description" in field for field in told) == len(documented)


def test_a_typo_in_a_key_of_compose_is_marked_too() -> None:
    assert VALIDATOR.is_valid({"services": {"web": {"image": "nginx", "x-mine": 1}}, "x-other": {}})
    assert not VALIDATOR.is_valid({"services": {"web": {"imagee": "nginx"}}})


def test_projects_on_the_pages_are_as_it_says() -> None:
    found = 0
    for of in pages():
        for block in of.blocks:
            if block.language == "yaml" and re.search(r"^services:", block.text, re.MULTILINE):
                VALIDATOR.validate(plain(yaml.safe_load(block.text)))
                found += 1
    assert found > 5


def compose_files(case: Path) -> Iterator[Any]:
    """Those without `!reset` and `!override`, which are no values."""
    parts = re.split(r"^=== (.+)\n", case.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        if re.fullmatch(r"(docker-)?compose[\w.]*\.ya?ml", name) and not re.search("!reset|!override", text):
            yield from map(plain, yaml.load_all(text, SourceLoader))


@pytest.mark.parametrize("case", sorted((CASES / "loaded").glob("*.txt")), ids=lambda path: path.stem)
def test_what_is_loaded_is_as_it_says(case: Path) -> None:
    for document in compose_files(case):
        VALIDATOR.validate(document)


def test_a_key_that_is_refused_under_x_dom0_is_none_of_its() -> None:
    refused = [
        one for one in (CASES / "refused").glob("*.txt") if re.search(r"x-dom0\S*: no such key", one.read_text())
    ]
    assert refused
    for case in refused:
        assert not all(map(VALIDATOR.is_valid, compose_files(case))), case.stem


@pytest.mark.parametrize(
    ("section", "is_right"),
    [
        (None, True),
        ({}, True),
        ({"ssh": None, "home": None}, True),
        ({"ssh": {"port": 2222}}, True),
        ({"ssh": {"port": "2222"}}, True),
        ({"ssh": {"port": "${PORT:-2222}"}}, True),
        ({"ssh": {"port": "ssh"}}, False),
        ({"ssh": {"port": True}}, False),
        ({"pull": {"limit": 100}}, False),
        ({"pull": {"serve": {"listen": "0.0.0.0:5050"}}}, False),
        ({"backup": {"data": {"to": "/srv", "env_file": "b.env", "keep": {"daily": 7}}}}, True),
        ({"backup": {"data": {"to": "/srv", "env_file": "b.env", "keep": {"dayly": 7}}}}, False),
    ],
)
def test_values_are_those_that_dom0_reads(section: Any, is_right: bool) -> None:
    assert VALIDATOR.is_valid({"services": {}, "x-dom0": section}) == is_right


@pytest.mark.parametrize(
    ("section", "is_right"),
    [
        ({"health_gate": "false"}, True),
        ({"health_gate": "${GATE}"}, True),
        ({"health_gate": "no way"}, False),
        ({"ambassador": {"listen": {"80": {"to": ["a:80", {"target": "b:80", "weight": "2"}], "udp": "keep"}}}}, True),
        ({"ambassador": {"listen": {"80": {"to": ["web:80"], "udp": "stay"}}}}, False),
        ({"ambassador": {"listen": {"80": {"to": ["web:80"], "udp": "${UDP}"}}}}, True),
        ({"ambassador": {}}, False),
        ({"orchestrator": {"grants": {"memory": "1g", "cpus": 0.5, "images": {"use": ["busybox"]}}}}, True),
        ({"orchestrator": {"grants": {"mem": "1g"}}}, False),
    ],
)
def test_values_of_a_service_are_those_that_dom0_reads(section: Any, is_right: bool) -> None:
    assert VALIDATOR.is_valid({"services": {"web": {"image": "nginx", "x-dom0": section}}}) == is_right
