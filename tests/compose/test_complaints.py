"""Whatever Docker Compose says, a person gets one readable line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.compose.complaints import understand
from dom0.compose.findings import Finding, Locations, refuse
from dom0.compose.parser import split_warnings
from dom0.wording import did_you_mean, excerpt

PIECES = ("service ", '"web"', "services.web", ".ports", " Additional property ", "x", " is not allowed", ": ", "\n",
          "validating a.yaml: ", "error while interpolating ", "depends on undefined service ", "{", "}", "{0}",
          ": invalid compose project", "Invalid proto: ", "error decoding '", "services[web].x'", "\x1b[31m",
          "yaml", "é")  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_any_words_become_one_printable_line(words: str) -> None:
    error = refuse([understand(words, [{"services": {"web": {"ports": ["80"]}}}, {"services": 5}])], Locations({}))
    assert error.message.isprintable()
    assert error.message


@pytest.mark.parametrize(
    "words",
    [
        "services.web.labels" + ".a" * 1000 + ":z must be a string",
        "services.web additional properties 'a'" + ", 'b'" * 1000 + " not allowed; and more",
        "dependency cycle detected: a",
        "Circular reference: a",
    ],
)
def test_words_that_are_nearly_known_are_passed_on_at_once(words: str) -> None:
    assert words.endswith(understand(words, [{"services": {"web": {"image": "x"}}}]).what)


def test_words_that_nobody_knows_are_passed_on() -> None:
    assert understand("the moon is full:\n  again", []).what == "the moon is full:; again"


def test_a_path_that_compose_names_is_one_of_keys() -> None:
    words = "services.other.container_name '-y' does not match pattern '[a-zA-Z0-9][a-zA-Z0-9_.-]+'"  # Compose 2.40
    assert understand(words, []).path == ("services", "other", "container_name")


@pytest.mark.parametrize("named", ["web", "other"])
def test_of_services_with_one_container_name_it_is_always_the_same_that_is_refused(named: str) -> None:
    words = f'services.{named}: container name "same" is already in use by service {{}}"'
    document = {"services": {name: {"container_name": "same"} for name in ("web", "other")}}
    path, what = ("services", "web", "container_name"), "same is the name of services.other already"
    found = understand(words, [document, document])
    assert (found.path, found.what) == (path, what)
    assert understand(words, []).path == ("services", named, "container_name")


def test_a_line_of_the_upper_layer_wins_and_the_nearest_key_around_stands_in() -> None:
    locations = Locations({"10.yaml": {"services.web": 3, "services.web.image": 4}, "60.yaml": {"services.web": 7}})
    assert locations.name(Finding(("services", "web", "image"), "")) == "10.yaml:4: services.web.image"
    assert locations.name(Finding(("services", "web", "ports", "0"), "")) == "60.yaml:7: services.web.ports.0"
    assert locations.name(Finding(("networks",), "")) == "networks"


@pytest.mark.parametrize("key", ["²", "9" * 5000])
def test_a_key_of_digits_may_be_no_number(key: str) -> None:
    assert Locations({"c": {"services.web": 3}}).find(("services", "web", key)) == ("c", 3)


def test_entries_are_found_in_long_lists_of_several_files() -> None:
    entries = {f"services.web.dns.{number}": number for number in range(50_000)}
    locations = Locations({"a": entries, "b": entries})
    for number in range(0, 100_000, 10):
        file, line = locations.find(("services", "web", "dns", str(number)))
        assert (file, line) == ("ab"[number // 50_000], number % 50_000)


def test_refusals_stand_in_the_order_of_the_file_and_none_twice() -> None:
    locations = Locations({"c": {"a": 1, "b": 2}})
    error = refuse([Finding(("b",), "wrong", "h"), Finding(("a",), "wrong", "h"), Finding(("a",), "wrong")], locations)
    assert error.message == "c:1: a: wrong\nc:2: b: wrong"
    assert error.hint == "h"


def test_a_hundred_refusals_are_not_all_printed() -> None:
    error = refuse([Finding((f"k{n}",), "wrong") for n in range(100)], Locations({}))
    assert len(error.message.splitlines()) == 21
    assert error.message.endswith("and 80 more")


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e", "\x00", "\u2028", "\x9b31m"])
def test_control_characters_are_spelled_out(text: str) -> None:
    assert excerpt(text).isprintable()


def test_no_guess_is_made_where_nothing_is_near() -> None:
    assert did_you_mean("prots", ["ports", "image"]) == "did you mean ports?"
    assert did_you_mean("zzzz", ["ports", "image"]) == "known here: image, ports"
    assert did_you_mean("zzzz", [f"key{n}" for n in range(50)]) == ""


def test_warnings_are_told_from_the_rest() -> None:
    said = 'time="2026-01-01T00:00:00Z" level=warning msg="The \\"X\\" variable is not set."\nno such thing\n\n'
    assert split_warnings(said) == (('The "X" variable is not set.',), "no such thing")
