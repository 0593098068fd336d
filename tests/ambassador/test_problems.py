"""What is wrong with an ambassador: each with what it is about, what new connections meet, and since when."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.ambassador.capabilities import Lack
from dom0.ambassador.declaration import Declaration, Hold, Last, Rule, WhenDown
from dom0.ambassador.problems import ProblemFacts, problems
from dom0.ambassador.sources import Named
from dom0.forward.table import Down, Listener, Protocol, Route, Table, Target, table
from dom0.health import Problem, Severity

REDIS = Listener(Protocol.TCP, 6379)
LAST = Last()
A, B = Target("10.0.0.1", 6379), Target("10.0.0.2", 6379)


def told(down: WhenDown = LAST, forwards: Table | None = None, **facts: Any) -> list[Problem]:
    declaration = Declaration((Rule(listener=REDIS, sources=(Named("redis", 6379),), down=down),))
    whole = ProblemFacts(declaration, table([Route(REDIS, 1, (A,))]) if forwards is None else forwards, **facts)
    return list(problems(whole, {("ambassador-name", "redis"): 5.0}, 9.0))


def test_an_ambassador_that_works_has_none() -> None:
    assert told(connections=(100, 262144)) == []


@pytest.mark.parametrize(
    ("facts", "code", "subject", "severity"),
    [
        ({"unresolved": {"redis": "no such name"}}, "ambassador-name", "redis", Severity.ERROR),
        ({"missing": {"container:r:1"}}, "ambassador-source", "container:r:1", Severity.ERROR),
        ({"loops": {REDIS: "redis:6379"}}, "ambassador-loop", "6379/tcp", Severity.ERROR),
        ({"panic": [REDIS]}, "ambassador-down", "6379/tcp", Severity.ERROR),
        ({"unhealthy": {str(B)}}, "ambassador-target", str(B), Severity.WARNING),
        ({"refused": "nft: no"}, "ambassador-rules", "rules", Severity.ERROR),
        ({"state": "disk full"}, "ambassador-state", "state", Severity.WARNING),
        ({"damaged": "is damaged", "state": "disk full"}, "ambassador-state", "state", Severity.WARNING),
        ({"connections": (90, 100)}, "ambassador-full", "conntrack", Severity.WARNING),
        ({"lacks": (Lack("net-raw", "no cut", "add it"),)}, "ambassador-lacks", "net-raw", Severity.WARNING),
    ],
)
def test_each_is_told_once_with_what_it_is_about(
    facts: dict[str, Any], code: str, subject: str, severity: Severity
) -> None:
    (problem,) = told(**facts)
    assert (problem.code, problem.subject, problem.severity) == (code, subject, severity)
    assert problem.title
    assert problem.hint


@pytest.mark.parametrize(
    ("down", "met", "words"),
    [
        (Last(), None, "are still sent to the last one"),
        (Hold(), Down.HOLD, "wait"),
        (Hold(1.0), Down.REFUSE, "are refused"),
    ],
)
def test_a_listener_without_a_target_says_what_new_connections_meet(
    down: WhenDown, met: Down | None, words: str
) -> None:
    (problem,) = told(down, table([Route(REDIS, 1, (A,), met)]), panic=[REDIS])
    assert problem.title.endswith(f"new ones {words}")


def test_a_listener_that_was_never_found_refuses() -> None:
    (problem,) = told(forwards=Table(), panic=[REDIS])
    assert problem.title.endswith("new ones are refused")


def test_a_problem_that_was_there_before_keeps_its_time() -> None:
    found = told(unresolved={"redis": "timeout"}, refused="no")
    assert [problem.since for problem in found] == [5.0, 9.0]


def test_the_last_target_that_is_down_is_not_told_twice() -> None:
    assert [it.code for it in told(panic=[REDIS], unhealthy={str(A)})] == ["ambassador-down"]
