"""The control socket: strict, bounded, for its owner alone. After a line that is refused the next one counts."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dom0.ambassador.client import ask
from dom0.ambassador.control import LARGEST_LINE
from dom0.ambassador.messages import Follow, Receipt, Rewire, Show, State
from dom0.errors import Dom0Error, UsageError
from dom0.testing.control_plane import ControlPlane
from dom0.testing.wires import Wires


@pytest.fixture
def amb(wires: Wires) -> Iterator[ControlPlane]:
    environ = {"DOM0_AMBASSADOR": json.dumps({"listen": {"6379": {"to": ["container:redis:6379"]}}})}
    with ControlPlane(wires.ambassador, environ) as made:
        yield made


@contextmanager
def lines(amb: ControlPlane) -> Iterator[Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(amb.control))
        with connection.makefile("rwb") as made:
            yield made


def say(made: Any, line: bytes) -> Any:
    made.write(line + b"\n")
    made.flush()
    return json.loads(made.readline())


HOSTILE: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"rewire --to x", "malformed"),
    "nothing": (b" ", "truncated"),
    "not UTF-8": (b'{"do": "\xff"}', "invalid start byte"),
    "a list": (b"[]", "Expected `object`"),
    "no request": (b'{"do": "flush"}', "Invalid value"),
    "no word what to do": (b"{}", "missing required field `do`"),
    "an unknown key": (b'{"do": "show", "all": true}', "unknown field"),
    "another type": (b'{"do": "rewire", "to": "h:1"}', "Expected `array`"),
    "deep nesting": (b'{"do":' * 100_000, "recursion"),
    "a line without end": (b" " * (LARGEST_LINE + 10), "is longer than"),
    "a number out of range": (b'{"do": "flows", "generation": 1e400}', "out of range"),
    "a generation below none": (b'{"do": "flows", "generation": -1}', "Expected `int` >= 0"),
    "control characters": (b'{"do": "rewire", "to": ["\\u001b:1"]}', "neither an address nor a name"),
    "comment injection": (b'{"do": "rewire", "to": ["h:1\\" ; flush ruleset #"]}', "is not a port"),
}


@pytest.mark.parametrize(("line", "why"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_understood_is_refused_and_the_next_line_counts(amb: ControlPlane, line: bytes, why: str) -> None:
    with lines(amb) as made:
        refused = say(made, line)
        assert why in refused["error"]
        assert refused["error"].isprintable()
        assert say(made, b'{"do": "show"}')["version"]


def test_a_connection_carries_any_number_of_requests_in_order(amb: ControlPlane) -> None:
    with lines(amb) as made:
        made.write(b'{"do": "show"}\n{"do": "history"}\n{"do": "flows"}\n')
        made.flush()
        answers = [json.loads(made.readline()) for _ in range(3)]
    assert [type(answer).__name__ for answer in answers] == ["dict", "list", "list"]


def test_only_the_owner_may_ask(amb: ControlPlane) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in (amb.control, amb.watch)} == {0o600}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"redis:6379": ("10.0.0.1",)}, "is not a source that is looked up"),
        ({"container:redis": ("127.0.0.1",)}, "a loop"),
        ({"container:redis": ("fe80::1",)}, "link-local"),
        ({"container:redis": ("redis",)}, "does not appear to be an IPv4 or IPv6 address"),
        ({f"container:c{number}": () for number in range(5000)}, "more than 4096"),
    ],
)
def test_a_finding_that_makes_no_sense_changes_nothing(
    amb: ControlPlane, found: dict[str, tuple[str, ...]], why: str
) -> None:
    amb.ask(Follow(found={"container:redis": ("10.0.0.9",)}), State)
    with pytest.raises(Dom0Error, match=why):
        amb.ask(Follow(found=found), State)
    assert amb.targets()["6379/tcp"] == ("10.0.0.9:6379",)


@pytest.mark.parametrize("to", ["no-such-name.invalid:1", "container:nobody:1", "service:nobody"])
def test_a_rewire_to_what_is_not_found_is_the_callers_mistake(amb: ControlPlane, to: str) -> None:
    """The agent's API answers 400 by this exit code."""
    with pytest.raises(Dom0Error, match=r"is not found|no address is known") as refused:
        amb.ask(Rewire(to=(to,)), Receipt)
    assert refused.value.exit_code == UsageError.exit_code
    assert "nothing was changed" in refused.value.hint


def test_without_an_ambassador_the_client_says_who_does_not_answer(amb: ControlPlane) -> None:
    amb.stop()
    with pytest.raises(Dom0Error, match="no ambassador answers") as refused:
        ask(Show(), State, path=amb.control)
    assert "docker logs" in refused.value.hint
