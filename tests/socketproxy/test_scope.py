from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.errors import UsageError
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import LABEL, Scope

FARM = Scope("farm")
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize("name", ["", "Farm", "a.b", "a/b", "-a", "a" * 32, "a b", "ä"])
def test_a_scope_has_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError):
        Scope(name)


@given(NAMES)
def test_a_name_comes_back_as_it_was(name: str) -> None:
    assert FARM.short(FARM.long(name)) == name


@given(NAMES)
def test_no_name_in_the_engine_looks_like_an_id(name: str) -> None:
    assert not re.fullmatch(r"[0-9a-f]{1,64}", FARM.long(name))


@pytest.mark.parametrize(
    ("name", "labels", "owns"),
    [
        ("farm.web", {LABEL: "/farm"}, True),
        ("farm.team.web", {LABEL: "/farm/team"}, True),
        ("farm.web", {}, False),
        ("farm.web", None, False),
        ("web", {LABEL: "/farm"}, False),
        ("farm.web", {LABEL: "/farmer"}, False),
        ("farm.web", {LABEL: "/other/farm"}, False),
        ("farmer.web", {LABEL: "/farm"}, False),
    ],
)
def test_both_name_and_label_say_whose_it_is(name: str, labels: dict[str, str] | None, owns: bool) -> None:
    assert FARM.owns(name, labels) is owns


def test_scopes_stack() -> None:
    team = Scope("team")
    labels = FARM.stamped(team.stamped({"a": "b"}))
    assert labels == {"a": "b", LABEL: "/farm/team"}
    assert FARM.owns(FARM.long(team.long("web")), labels)
    assert team.shown(FARM.shown(labels)) == {"a": "b"}


@pytest.mark.parametrize("path", ["/", "other", "/../x", "/a//b", "/" + "a" * 40, "/A"])
def test_the_label_is_a_path_of_scopes(path: str) -> None:
    with pytest.raises(Refused):
        FARM.stamped({LABEL: path})


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ('The container name "/farm.web" is already in use', 'The container name "/web" is already in use'),
        ("network farm.n not found", "network n not found"),
        ("my-farm.web is another one", "my-farm.web is another one"),
    ],
)
def test_messages_have_the_scopes_own_names(said: str, seen: str) -> None:
    assert FARM.without_prefix(said) == seen


@pytest.mark.parametrize(
    ("asked", "engine"),
    [("^/web$", "^/?farm\\.web$"), ("^web", "^/?farm\\.web"), ("web", "web"), ("^/?web", "^/?farm\\.web")],
)
def test_a_filter_by_name_is_of_the_scopes_names(asked: str, engine: str) -> None:
    assert FARM.long_pattern(asked) == engine
