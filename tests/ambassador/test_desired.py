"""What each listener should do now: what is up gets connections; while nothing is, the last targets stay."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.ambassador import desired
from dom0.ambassador.declaration import Hold, Last, Probing, Refuse, Rule
from dom0.ambassador.desired import Findings, Wanted
from dom0.ambassador.sources import parse
from dom0.forward.table import MOST_TARGETS, Down, Listener, Protocol, Route, Target

REDIS = Listener(Protocol.TCP, 6379)
A, B = Target("10.0.0.1", 6379), Target("10.0.0.2", 6379)
PROBING = Probing(2.0, 1.0, 3, 2)


def rule(*to: str, **more: Any) -> Rule:
    return Rule(listener=REDIS, sources=tuple(map(parse, to)), **more)


def targets(of: Rule, **found: Any) -> list[str]:
    return [str(it) for it in desired.targets(of.sources, of, Findings(listening={REDIS}, **found))]


def test_sources_become_targets_each_once_in_a_fixed_order() -> None:
    addresses = {"redis": ["10.0.0.2", "10.0.0.1"], "container:r": ["2001:db8::1"]}
    of = rule("redis:6379", "10.0.0.1:6379", "container:r:1", "nobody:1")
    assert targets(of, addresses=addresses) == ["10.0.0.1:6379", "10.0.0.2:6379", "[2001:db8::1]:1"]


def test_what_is_on_another_node_is_at_the_port_that_was_found() -> None:
    of = rule("node:nas/service:r:1", "node:nas/service:r:2", "node:pi/service:r:1")
    addresses = {"node:nas/service:r:1": ["10.0.0.1:8001", "[2001:db8::1]:8001"], "node:nas/service:r:2": []}
    assert targets(of, addresses=addresses) == ["10.0.0.1:8001", "[2001:db8::1]:8001"]


def test_a_name_with_too_many_addresses_gives_as_many_as_a_listener_takes() -> None:
    many = [f"10.0.{number // 256}.{number % 256}" for number in range(1, 200)]
    assert len(targets(rule("redis:1"), addresses={"redis": many})) == MOST_TARGETS


def test_the_listener_itself_is_no_target_and_another_port_of_ours_is() -> None:
    def is_own(address: str) -> bool:
        return address == "10.0.0.1"

    assert targets(rule("10.0.0.1:6379", "10.0.0.1:80", "10.0.0.2:6379"), is_own=is_own) == [
        "10.0.0.1:80",
        "10.0.0.2:6379",
    ]


def test_without_a_probe_everything_counts_as_up() -> None:
    assert desired.wanted(rule(), [A], Findings(unhealthy={str(A)}), None) == Wanted((A,))


def test_what_is_down_gets_nothing_while_another_is_up() -> None:
    assert desired.wanted(rule(health=PROBING), [A, B], Findings(unhealthy={str(A)}), None) == Wanted((B,))


@pytest.mark.parametrize(
    ("down", "waited", "meets"),
    [
        (Last(), 0.0, None),
        (Refuse(), 0.0, Down.REFUSE),
        (Hold(), 1e6, Down.HOLD),
        (Hold(10.0), 9.9, Down.HOLD),
        (Hold(10.0), 10.0, Down.REFUSE),
    ],
)
@pytest.mark.parametrize("known", [[A, B], []], ids=["all of them are down", "none is known any more"])
def test_while_nothing_is_up_the_last_targets_stay(down: Any, waited: float, meets: Down | None, known: Any) -> None:
    found = Findings(unhealthy={str(A), str(B)}, down_for={REDIS: waited})
    last = Route(REDIS, 1, (B,))
    assert desired.wanted(rule(health=PROBING, down=down), known, found, last) == Wanted((B,), meets)


def test_what_was_down_from_the_beginning_is_tried_all_the_same() -> None:
    assert desired.wanted(rule(health=PROBING), [A], Findings(unhealthy={str(A)}), None) == Wanted((A,))


def test_what_was_never_found_does_not_listen_unless_the_rule_says_what_then() -> None:
    assert desired.wanted(rule("redis:6379"), [], Findings(), None) is None
    assert desired.wanted(rule("redis:6379", down=Hold()), [], Findings(), None) == Wanted((), Down.HOLD)


def test_targets_of_a_rewire_are_tried_although_they_look_down() -> None:
    last = Route(REDIS, 1, (A,))
    assert desired.wanted(rule(health=PROBING), [B], Findings(unhealthy={str(B)}), last) == Wanted((B,))


def test_a_listener_is_held_while_a_rewire_waits_for_its_target() -> None:
    assert desired.wanted(rule(), [A], Findings(held={REDIS}), None) == Wanted((A,), Down.HOLD)


@pytest.mark.parametrize(("down", "meets"), [(Last(), Down.HOLD), (Refuse(), Down.REFUSE), (Hold(10.0), Down.HOLD)])
def test_a_listener_is_held_while_what_it_follows_is_replaced_unless_the_rule_says_otherwise(
    down: Any, meets: Down
) -> None:
    of, last = rule("service:redis:6379", down=down), Route(REDIS, 1, (A,))
    assert desired.wanted(of, [], Findings(awaited={REDIS}), last) == Wanted((A,), meets)
    assert desired.wanted(of, [B], Findings(awaited={REDIS}), last) == Wanted((B,))
