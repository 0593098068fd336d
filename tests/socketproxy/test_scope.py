from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.errors import UsageError
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import LABEL, LARGEST_LABELS, LARGEST_OF_OTHERS, ORCHESTRATOR, Scope, is_made_inside

GUEST = Scope("guest")
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize("name", ["", "Farm", "a.b", "a/b", "-a", "a" * 32, "a b", "ä"])
def test_a_scope_has_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError):
        Scope(name)


@given(NAMES)
def test_a_name_comes_back_as_it_was(name: str) -> None:
    assert GUEST.short(GUEST.long(name)) == name


@given(NAMES)
def test_no_name_in_the_engine_looks_like_an_id(name: str) -> None:
    assert not re.fullmatch(r"[0-9a-f]{1,64}", GUEST.long(name))


@pytest.mark.parametrize(
    ("name", "labels", "owns"),
    [
        ("guest.web", {LABEL: "/guest"}, True),
        ("guest.team.web", {LABEL: "/guest/team"}, True),
        ("guest.web", {}, False),
        ("guest.web", None, False),
        ("web", {LABEL: "/guest"}, False),
        ("guest.web", {LABEL: "/guester"}, False),
        ("guest.web", {LABEL: "/other/guest"}, False),
        ("guester.web", {LABEL: "/guest"}, False),
    ],
)
def test_both_name_and_label_say_whose_it_is(name: str, labels: dict[str, str] | None, owns: bool) -> None:
    assert GUEST.owns(name, labels) is owns


def test_scopes_stack() -> None:
    team = Scope("team")
    labels = GUEST.stamped(team.stamped({"a": "b"}))
    assert labels == {"guest/team/a": "b", LABEL: "/guest/team"}
    assert GUEST.shown(labels) == {"team/a": "b", LABEL: "/team"}
    assert GUEST.owns(GUEST.long(team.long("web")), labels)
    assert team.shown(GUEST.shown(labels)) == {"a": "b"}


KEYS = st.text(max_size=4) | st.sampled_from(["guest/a", "team/a", "guest/dom0.scope", "team/guest/a", "a"])
LABELS = st.dictionaries(KEYS, st.text(max_size=3), max_size=6)


@given(given=LABELS, of_image=LABELS)
def test_labels_come_back_as_they_were_given_and_nobody_else_has_any(
    given: dict[str, str], of_image: dict[str, str]
) -> None:
    for scopes in ([GUEST], [GUEST, Scope("team")]):
        seen, wanted = of_image, given
        for scope in scopes:
            seen = scope.shown(seen)
        for scope in reversed(scopes):
            image = of_image if scope is GUEST else GUEST.shown(of_image)
            wanted = scope.stamped_container(wanted, image)
        raw = of_image | wanted  # as the Engine does it
        assert not {key for key, value in raw.items() if value and not key.startswith("guest/")} - {LABEL}
        for scope in scopes:
            raw = scope.shown(raw)
        assert raw == seen | given


def test_nothing_of_a_label_makes_a_container_another_scopes() -> None:
    forged = {"guest/dom0.scope": "/team", "guest/dom0.orchestrator": "{}", "a": "b", LABEL: "/other"}
    made = GUEST.stamped_container({}, forged)
    assert GUEST.shown(forged | made) == {"a": "b"}


def test_what_an_older_server_has_made_is_seen_as_it_is() -> None:
    assert GUEST.shown({LABEL: "/guest", "a": "b"}) == {"a": "b"}


def test_an_orchestrator_sees_what_its_image_says_and_not_what_it_is_to_its_owner() -> None:
    outside = {LABEL: "/guest", "dom0.role": "service", "com.docker.compose.project": "box", "mine": "yes"}
    outside[ORCHESTRATOR] = '{"dom0.role":"root"}'
    assert GUEST.shown(outside) == {"dom0.role": "root", "mine": "yes", ORCHESTRATOR: "itself"}
    assert GUEST.shown({**outside, ORCHESTRATOR: "{"}) == {"mine": "yes", ORCHESTRATOR: "itself"}


def test_in_a_scope_inside_another_one_an_orchestrator_sees_the_same() -> None:
    team = Scope("team")
    asked = {LABEL: "/team", ORCHESTRATOR: '{"dom0.role":"root"}', "dom0.role": "service"}
    made = GUEST.stamped_container(asked, {})
    assert team.shown(GUEST.shown(made)) == {"dom0.role": "root", ORCHESTRATOR: "itself"}


def test_nothing_that_is_made_in_a_scope_says_that_it_was_given_its_socket() -> None:
    forged = GUEST.stamped_container({ORCHESTRATOR: "{}", "dom0.project": "box"}, {})
    assert forged == {LABEL: "/guest", ORCHESTRATOR: "", "guest/dom0.project": "box"}
    assert GUEST.shown(forged) == {"dom0.project": "box"}


def test_whose_orchestrator_a_container_is() -> None:
    team = GUEST.stamped_container({LABEL: "/team", ORCHESTRATOR: "{}"}, {})
    assert team == {LABEL: "/guest/team", ORCHESTRATOR: "{}"}
    assert GUEST.is_orchestrator({LABEL: "/guest", ORCHESTRATOR: "{}"})
    for labels in (team, GUEST.stamped_container({ORCHESTRATOR: "{}"}, {}), {LABEL: "/guest"}, {}, None):
        assert not GUEST.is_orchestrator(labels)


@pytest.mark.parametrize(
    ("labels", "inside"),
    [
        ({}, False),
        ({LABEL: "/guest", ORCHESTRATOR: "{}"}, False),
        ({LABEL: "/guest"}, True),
        ({LABEL: "/guest", ORCHESTRATOR: ""}, True),
        ({LABEL: "/guest/team", ORCHESTRATOR: "{}"}, True),
    ],
)
def test_what_was_made_in_a_scope_is_not_the_machines(labels: dict[str, str], inside: bool) -> None:
    assert is_made_inside(labels) is inside


@pytest.mark.parametrize("path", ["/", "other", "/../x", "/a//b", "/" + "a" * 40, "/A"])
def test_the_label_is_a_path_of_scopes(path: str) -> None:
    with pytest.raises(Refused):
        GUEST.stamped({LABEL: path})


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ('The container name "/guest.web" is already in use', 'The container name "/web" is already in use'),
        ("network guest.n not found", "network n not found"),
        ("my-guest.web is another one", "my-guest.web is another one"),
    ],
)
def test_messages_have_the_scopes_own_names(said: str, seen: str) -> None:
    assert GUEST.without_prefix(said) == seen


@pytest.mark.parametrize(
    ("asked", "engine"),
    [("^/web$", "^/?guest\\.web$"), ("^web", "^/?guest\\.web"), ("web", "web"), ("^/?web", "^/?guest\\.web")],
)
def test_a_filter_by_name_is_of_the_scopes_names(asked: str, engine: str) -> None:
    assert GUEST.long_pattern(asked) == engine


@pytest.mark.parametrize(
    ("labels", "of_image"),
    [
        ({"a": "x" * LARGEST_LABELS}, {}),
        ({"a": "\x01" * (LARGEST_LABELS // 6)}, {}),
        ({"a": "<" * (LARGEST_LABELS // 6)}, {}),
        ({}, {"a": "x" * LARGEST_LABELS}),
        ({}, {f"{number:01000}": "" for number in range(LARGEST_LABELS // 1900)}),  # they are there twice
        ({str(number): "" for number in range(LARGEST_LABELS // 12)}, {}),  # with our prefix
    ],
)
def test_labels_of_a_container_have_an_end_whoever_gave_them(labels: dict[str, str], of_image: dict[str, str]) -> None:
    with pytest.raises(Refused, match=r"Labels: .* fewer or shorter ones"):
        GUEST.stamped_container(labels, of_image)


def test_labels_as_long_as_anybody_gives_them_pass() -> None:
    given = {f"com.example.{number}": "x" * 100 for number in range(100)}
    assert len(GUEST.stamped_container(given, given)) == 201 + 1


def test_labels_of_a_volume_or_a_network_are_short() -> None:
    GUEST.stamped({"a": "x" * (LARGEST_OF_OTHERS - 100)})
    with pytest.raises(Refused, match=r"Labels: .* fewer or shorter ones"):
        GUEST.stamped({"a": "x" * LARGEST_OF_OTHERS})
