"""docs/socketproxy.md says what the table says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from dom0.socketproxy import system
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.table import TABLE
from dom0.testing.escape.attempts import cases

PAGE = (Path(__file__).parents[2] / "docs" / "socketproxy.md").read_text()


def test_every_request_that_is_answered_is_on_the_page() -> None:
    said = [line for line in PAGE.splitlines() if line.startswith(("| `GET`", "| `POST`", "| `PUT`", "| `DELETE`"))]
    assert said == [f"| `{end.method}` | `{end.path}` |" for end in TABLE if end.handler is not system.no_swarm]


def test_every_grant_is_on_the_page() -> None:
    for field in msgspec.structs.fields(Grants):
        assert f"`{field.name}`" in PAGE or f"`{field.name}." in PAGE


def test_the_page_says_how_many_ways_out_are_tried() -> None:
    assert f"| `dom0 socket serve` | {len(cases())} | 0 |" in PAGE


@pytest.mark.parametrize(("folder", "files"), [("engine", "test_conformance_*.py"), ("machine", "test_*.py")])
def test_what_fails_in_a_scope_is_on_the_page(folder: str, files: str) -> None:
    tests = Path(__file__).parents[1] / folder
    failed = tomllib.loads((tests / "scoped.toml").read_text())
    sources = "".join(path.read_text() for path in tests.glob(files))
    for why, said in failed.items():
        assert f"\n| {why} | {len(said['tests'])} |" in PAGE
        for test in said["tests"]:
            assert f"def {test.partition('[')[0]}(" in sources
