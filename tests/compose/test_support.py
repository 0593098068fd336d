"""The support table knows all that the installed Compose accepts, and docs/reference/compose.md says the same.

`python tests/compose/test_support.py` writes the table into that page.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.compose.model import Network, Service, Volume
from dom0.compose.parser import find_plugin
from dom0.compose.support import TABLE, KeySupport, SupportLevel, ignored, known_keys, refused
from dom0.testing.projects import support_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "compose.md"
SECTIONS = {
    "top": ("", "At the top level"),
    "services": ("services.*.", "A service"),
    "networks": ("networks.*.", "A network"),
    "volumes": ("volumes.*.", "A volume"),
    "configs": ("configs.*.", "A config"),
    "secrets": ("secrets.*.", "A secret"),
}
_MARKED = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- /table -->)", re.DOTALL)
NEWER = {row.path[-1] for row in TABLE if row.newer} | {
    *("image", "interface_name", "labels", "models", "provenance", "sbom", "subpath"),
}
START = b'{\n  "$schema": "https://json-schema.org/draft-07/schema'


@functools.cache
def schema_keys() -> frozenset[str]:
    """Every key of the schema that is built into the plugin, dotted, `*` for a name."""
    binary = find_plugin().read_bytes()
    start = binary.index(START)
    text = binary[start : start + 400_000].decode("utf-8", "replace")
    schema, _ = json.JSONDecoder().raw_decode(text)
    return frozenset(_keys(schema, schema, ""))


def _keys(schema: dict[str, Any], part: dict[str, Any], path: str) -> Iterator[str]:
    if reference := part.get("$ref"):
        name = reference.rsplit("/", 1)[-1]
        part = schema["definitions"][name]
    for choice in ("oneOf", "anyOf", "allOf"):
        for inner in part.get(choice, ()):
            yield from _keys(schema, inner, path)
    for key, inner in part.get("properties", {}).items():
        yield f"{path}{key}"
        yield from _keys(schema, inner, f"{path}{key}.")
    for pattern, inner in part.get("patternProperties", {}).items():
        if pattern != "^x-" and isinstance(inner, dict):
            yield from _keys(schema, inner, f"{path}*.")
    if isinstance(part.get("items"), dict):
        yield from _keys(schema, part["items"], path)


def test_every_key_of_composes_schema_has_a_row() -> None:
    nouns = ("services", "networks", "volumes", "configs", "secrets")
    own = {key for key in schema_keys() if "." not in key or (key.split(".")[0] in nouns and key.count(".") == 2)}
    assert len(own) > 100
    assert own - {row.key for row in TABLE} == set()


def test_no_row_is_about_a_key_that_compose_does_not_know() -> None:
    ours = {row.key for row in TABLE if not row.newer and not row.key.endswith(("x-*", "x-dom0"))}
    assert ours - schema_keys() == set()


def test_every_deeper_key_has_a_verdict_through_the_key_around_it() -> None:
    assert {key for key in schema_keys() if support_of(key) is None} == set()


def test_guesses_know_the_keys_of_every_place() -> None:
    """Except below `develop` and where a key is deprecated."""
    places: dict[str, set[str]] = {}
    for key in schema_keys():
        place, _, name = key.rpartition(".")
        places.setdefault(place, set()).add(name)
    skipped = ("develop", "external", "build.", "generic_resources", "preferences", "device_read", "device_write")
    for place, names in places.items():
        if not any(word in place for word in (*skipped, "weight_device", "credential_spec", "models", "provider")):
            known = set(known_keys(tuple(place.split(".")) if place else ()))
            assert known - {"x-dom0"} - NEWER == names - NEWER, place


def test_every_key_once() -> None:
    keys = [row.key for row in TABLE]
    assert len(keys) == len(set(keys))


def test_what_is_not_honoured_says_why_and_what_is_refused_what_to_do() -> None:
    for row in TABLE:
        assert row.note or row.level is SupportLevel.HONOURED, row.key
        assert "; " in row.note or row.level is not SupportLevel.REFUSED, row.key


@pytest.mark.parametrize(("noun", "model"), [("services", Service), ("networks", Network), ("volumes", Volume)])
def test_what_is_honoured_has_a_place_in_the_model(noun: str, model: type[Any]) -> None:
    read_by_compose = {"env_file", "extends", "label_file"}
    honoured = {row.path[2] for row in TABLE if row.key.startswith(f"{noun}.*.") and row.level is SupportLevel.HONOURED}
    assert honoured - read_by_compose <= {field.replace("x_dom0", "x-dom0") for field in model.__struct_fields__}


def test_refused_keys_are_found_wherever_they_stand() -> None:
    project = {
        "services": {"a": {"credential_spec": {"file": "x"}}, "b": {"isolation": "default"}},
        "networks": {"n": {"ipam": {"options": {"a": "b"}}}, "m": {"ipam": {"options": {}}}},
        "secrets": {"s": {"external": False}, "t": {"external": True}},
    }
    assert [".".join(refusal.path) for refusal in refused(project)] == [
        "services.a.credential_spec",
        "networks.n.ipam.options",
        "secrets.t.external",
    ]


def test_what_compose_fills_in_by_itself_is_not_called_ignored() -> None:
    project = {"services": {"a": {"ports": [{"mode": "ingress", "target": 80}], "networks": {"default": None}}}}
    assert list(ignored(project)) == []


def test_the_documentation_shows_this_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python tests/compose/test_support.py"


def markdown() -> str:
    parts = [_section(prefix, title) for prefix, title in SECTIONS.values()]
    return "\n".join(["", *parts])


def with_table(page: str) -> str:
    assert _MARKED.search(page), "the page has lost its table marks"
    return _MARKED.sub(lambda _: markdown(), page)


def _section(prefix: str, title: str) -> str:
    rows = sorted((row for row in TABLE if _belongs(row, prefix)), key=lambda row: row.key)
    lines = [f"### {title}", "", "| key | dom0 | how, why |", "|---|---|---|"]
    lines += [f"| `{row.key.removeprefix(prefix)}` | {row.level.value} | {row.note} |" for row in rows]
    return "\n".join([*lines, ""])


def _belongs(row: KeySupport, prefix: str) -> bool:
    return row.key.startswith(prefix) if prefix else "." not in row.key


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
