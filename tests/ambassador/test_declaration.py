"""Settings and variables become rules, or a refusal that tells every flaw with its place."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dom0.ambassador.declaration import (
    VARIABLE,
    Cut,
    Declaration,
    DrainFor,
    Hold,
    Keep,
    MetricsAddress,
    Misdeclared,
    Probing,
    declare,
    from_environment,
    read_settings,
)
from dom0.ambassador.settings import Settings
from dom0.errors import ProjectError


def of(**settings: Any) -> Declaration:
    return declare(msgspec.convert(settings, Settings))


def flaws(**settings: Any) -> dict[str, str]:
    with pytest.raises(Misdeclared) as refused:
        of(**settings)
    return {".".join(flaw.steps): flaw.what for flaw in refused.value.flaws}


def test_a_listener_alone_keeps_what_is_there_and_sends_on_to_the_last_target() -> None:
    (rule,) = of(listen={"6379": {"to": ["10.0.0.1:6379"]}}).rules
    assert (str(rule.listener), [*map(str, rule.sources)]) == ("6379/tcp", ["10.0.0.1:6379"])
    assert (rule.existing, rule.udp, rule.health) == (Keep(), "move", None)


def test_everything_that_can_be_said_of_a_listener_is_taken() -> None:
    listen = {
        "to": ["redis.example.:6379", {"target": "[2001:db8::1]:6380", "weight": 3}, "container:redis:6379"],
        "existing": "drain=1m30s",
        "udp": "keep",
        "down": "hold=10s",
        "health": {"interval": "500ms", "timeout": "2s", "fall": 2, "rise": 1},
    }
    declaration = of(listen={"6379/tcp": listen}, metrics="[::1]:9180", shortcut=False)
    (rule,) = declaration.rules
    assert [str(it) for it in rule.sources] == ["redis.example.:6379", "[2001:db8::1]:6380", "container:redis:6379"]
    assert [it.weight for it in rule.sources] == [1, 3, 1]
    assert (rule.existing, rule.down, rule.udp) == (DrainFor(90.0), Hold(10.0), "keep")
    assert rule.health == Probing(0.5, 2.0, 2, 1)
    assert (declaration.metrics, declaration.shortcut) == (MetricsAddress("::1", 9180), False)


def test_a_range_goes_to_as_many_ports() -> None:
    rules = of(listen={"7000-7002/udp": {"to": ["h:8000", "label:role=db:9000"], "existing": "cut"}}).rules
    assert [(str(it.listener), *map(str, it.sources)) for it in rules] == [
        ("7000/udp", "h:8000", "label:role=db:9000"),
        ("7001/udp", "h:8001", "label:role=db:9001"),
        ("7002/udp", "h:8002", "label:role=db:9002"),
    ]
    assert {it.existing for it in rules} == {Cut()}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no port": ({"80": {"to": ["h"]}}, "listen.80.to.0", "names no port"),
    "no target": ({"80": {"to": []}}, "listen.80.to", "0 targets"),
    "too many targets": ({"80": {"to": [f"h{n}:1" for n in range(65)]}}, "listen.80.to", "65 targets"),
    "one target twice": ({"80": {"to": ["h:1", "H:1"]}}, "listen.80.to.1", "listed twice"),
    "a listener that is none": ({"http": {"to": ["h:1"]}}, "listen.http", "is not a listener"),
    "a listener with a rule in it": ({"80/tcp}; flush": {"to": ["h:1"]}}, "listen.80/tcp}; flush", "is not a listener"),
    "a range from behind": ({"80-79": {"to": ["h:1"]}}, "listen.80-79", "is not a range"),
    "a range that is too long": ({"1-65535": {"to": ["h:1"]}}, "listen.1-65535", "more than 4096"),
    "a range past the last port": ({"80-89": {"to": ["h:65530"]}}, "listen.80-89.to", "past port 65535"),
    "one listener twice": ({"80": {"to": ["h:1"]}, "79-81": {"to": ["h:1"]}}, "listen.79-81", "80/tcp is listed twice"),
    "a policy that is none": ({"80": {"to": ["h:1"], "existing": "kill"}}, "listen.80.existing", "one of keep, cut"),
    "a drain without time": ({"80": {"to": ["h:1"], "existing": "drain="}}, "listen.80.existing", "not one of keep"),
    "a drain of no time": ({"80": {"to": ["h:1"], "existing": "drain=0s"}}, "listen.80.existing", "out of range"),
    "a drain for ever": ({"80": {"to": ["h:1"], "existing": "drain=25h"}}, "listen.80.existing", "out of range"),
    "a time that is none": ({"80": {"to": ["h:1"], "down": "hold=soon"}}, "listen.80.down", "not a duration"),
    "a word for down": ({"80": {"to": ["h:1"], "down": "panic"}}, "listen.80.down", "not one of last, refuse"),
    "health of UDP": ({"80/udp": {"to": ["h:1"], "health": {}}}, "listen.80/udp.health", "only a TCP target"),
    "a hasty probe": (
        {"80": {"to": ["h:1"], "health": {"interval": "1ms"}}},
        "listen.80.health.interval",
        "too often",
    ),
    "no falls": ({"80": {"to": ["h:1"], "health": {"fall": 0}}}, "listen.80.health.fall", "out of range"),
    "a weight of nothing": ({"80": {"to": [{"target": "h:1", "weight": 0}]}}, "listen.80.to.0", "not a weight"),
    "a container without a name": ({"80": {"to": ["container::80"]}}, "listen.80.to.0", "cannot be the name"),
    "another node in plaintext without the word": (
        {"80": {"to": ["h:1", "plaintext:node:nas/service:redis:6379"]}},
        "listen.80.to.1",
        "nothing would be encrypted on the way",
    ),
    "UDP to another node": (
        {"80/udp": {"to": ["node:nas/service:redis:6379"], "plaintext": True}},
        "listen.80/udp.to.0",
        "TCP alone",
    ),
    "a label of two lines": ({"80": {"to": ["label:a=b\nc:80"]}}, "listen.80.to.0", "cannot be the name"),
}


@pytest.mark.parametrize(("listen", "place", "why"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_with_its_place(listen: dict[str, Any], place: str, why: str) -> None:
    found = flaws(listen=listen)
    assert list(found) == [place]
    assert why in found[place]


@pytest.mark.parametrize("text", ["http", "0", 0, 70000, "10.0.0.1:", "::1:9180x", "host:9180", "80", 80])
def test_metrics_have_an_address_and_a_free_port(text: str | int) -> None:
    assert list(flaws(listen={"80": {"to": ["h:1"]}}, metrics=text)) == ["metrics"]


def test_every_flaw_is_told_at_once() -> None:
    assert len(flaws(listen={"x": {"to": ["h:1"]}, "80": {"to": ["h"]}}, metrics="y")) == 3


def test_ten_thousand_listeners_are_refused() -> None:
    many = {str(port): {"to": ["h:1"]} for port in range(1, 10001)}
    assert flaws(listen=many) == {"listen": "10000 listeners are more than 4096"}


# the variable


def test_the_variable_holds_settings_as_json() -> None:
    declaration, _ = from_environment({VARIABLE: '{"listen": {"80": {"to": ["h:81"]}}}', "A_PORT_90_TCP": "tcp://i:91"})
    assert [str(rule.listener) for rule in declaration.rules] == ["80/tcp", "90/tcp"]


@pytest.mark.parametrize("metrics", ["9180", '"9180"'])
def test_a_port_may_be_a_number(metrics: str) -> None:
    declaration, _ = from_environment({VARIABLE: f'{{"listen": {{"80": {{"to": ["h:81"]}}}}, "metrics": {metrics}}}'})
    assert declaration.metrics == MetricsAddress("", 9180)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "DOM0_AMBASSADOR: is not JSON"),
        ("[]", "DOM0_AMBASSADOR: has to be a mapping, not a list"),
        ('{"listne": {}}', "DOM0_AMBASSADOR: listne: no such key"),
        ('{"listen": {"80": {"to": "h:1"}}}', "to: has to be a list, not text"),
        ('{"listen": {"80": {"to": ["h"]}}}', "DOM0_AMBASSADOR: listen.80.to.0: 'h' names no port"),
        (json.dumps({"listen": {}, "metrics": "x" * 300_000}), "are more than 262144"),
        ('{"listen": {"80": {"to": ["\udcff:1"]}}}', "DOM0_AMBASSADOR"),
    ],
)
def test_a_variable_that_is_wrong_is_named(text: str, what: str) -> None:
    with pytest.raises(ProjectError) as refused:
        from_environment({VARIABLE: text})
    assert what in refused.value.message
    assert refused.value.exit_code == 3


def test_a_misspelt_key_is_answered_with_the_right_one() -> None:
    with pytest.raises(Misdeclared) as refused:
        read_settings('{"listen": {"80": {"to": ["h:1"], "existng": "cut"}}}')
    assert refused.value.hint == "did you mean existing?"


def test_a_port_that_both_say_is_refused() -> None:
    environ = {VARIABLE: '{"listen": {"80": {"to": ["h:81"]}}}', "A_PORT_80_TCP": "tcp://h:81"}
    with pytest.raises(Misdeclared, match="A_PORT_80_TCP: DOM0_AMBASSADOR says already where 80/tcp goes"):
        from_environment(environ)


def test_without_any_listener_the_error_lists_what_is_looked_for() -> None:
    with pytest.raises(ProjectError) as refused:
        from_environment({"PATH": "/bin"})
    assert "ALIAS_PORT_<n>_TCP=tcp://HOST:PORT" in refused.value.hint
    assert VARIABLE in refused.value.hint


def test_ten_thousand_link_variables_are_refused() -> None:
    with pytest.raises(ProjectError, match="10000 listeners are more than 4096"):
        from_environment({f"A_PORT_{port}_TCP": "tcp://h:1" for port in range(1, 10001)})


def test_no_control_character_reaches_the_message() -> None:
    with pytest.raises(ProjectError) as refused:
        from_environment({"A\x1b[2J_PORT_80_TCP": "tcp://h\x1b:1"})
    assert "\x1b" not in refused.value.message


def test_the_digest_is_that_of_where_connections_go() -> None:
    one, same = of(listen={"80": {"to": ["h:1"]}}), of(listen={"80/tcp": {"to": ["H:1"]}}, shortcut=False)
    other = of(listen={"80": {"to": ["h:1"], "existing": "cut"}})
    assert one.digest == same.digest != other.digest
    assert one.digest == "41f9e5c1d4b14a27e3d7b03c1e0ff0feb5586d7123a6539a2ef1b646454d42a5", (
        "what people rewired outlives another dom0-ambassador"
    )
    assert of(listen={"80": {"to": ["h:1"], "plaintext": True}}).digest != one.digest


def test_a_range_goes_to_another_node_by_the_tunnel_or_in_plaintext_where_it_says_so() -> None:
    far = ["node:nas/service:web:80"]
    declared = of(listen={"7000-7001": {"to": far, "plaintext": True}, "90-91": {"to": far}})
    assert [str(source) for rule in declared.rules for source in rule.sources] == [
        "node:nas/service:web:80",
        "node:nas/service:web:81",
        "plaintext:node:nas/service:web:80",
        "plaintext:node:nas/service:web:81",
    ]
    assert sorted(map(str, declared.plaintext)) == ["7000/tcp", "7001/tcp"]
