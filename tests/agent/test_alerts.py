"""What people are told of problems: each once, when it lasts, and once when it is over."""

from __future__ import annotations

from collections.abc import Sequence

from dom0.agent.alerts import BETWEEN, CALM, HOLD, LONGEST_CALM, MOST_SHOWN, KnownAlerts, Message, look, resumed
from dom0.health import Problem

STEP = 5.0


def problem(subject: str = "web-1", code: str = "crash-loop") -> Problem:
    return Problem(code=code, subject=subject, title=f"{subject} keeps exiting", hint="dom0 logs web")


class Looks:
    """At a machine, every few seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.known = KnownAlerts()
        self.told: list[Message] = []

    def see(self, problems: Sequence[Problem], seconds: float) -> list[Message]:
        """What is told while it is so."""
        before = len(self.told)
        end = self.now + seconds
        while self.now < end:
            self.known, message = look(self.known, problems, "box", self.now)
            self.told += [message] if message else []
            self.now += STEP
        return self.told[before:]


def test_a_problem_that_lasts_is_told_once_and_once_when_it_is_over() -> None:
    looks = Looks()
    assert looks.see([problem()], HOLD) == []
    [told] = looks.see([problem()], 7 * 86400)
    assert (told.title, told.is_bad, told.problems) == ("box: web-1 keeps exiting", True, (problem(),))
    assert "[crash-loop]\n      dom0 logs web" in told.text
    assert looks.see([], CALM - STEP) == []
    [told] = looks.see([], 7 * 86400)
    assert (told.title, told.is_bad, told.problems, told.over) == (
        "box: over: web-1 keeps exiting",
        False,
        (),
        (problem(),),
    )
    assert "over web-1: it was wrong for 7d  [crash-loop]" in told.text


def test_what_is_over_before_it_has_lasted_is_not_told() -> None:
    looks = Looks()
    for _ in range(10):
        assert looks.see([problem()], HOLD - STEP) == []
        assert looks.see([], 3600) == []
    assert looks.known.standing == {}


def test_many_at_once_are_one_message_of_a_bounded_size() -> None:
    looks = Looks()
    [told] = looks.see([problem(f"web-{number}") for number in range(200)], 3600)
    assert (told.title, len(told.text.splitlines())) == ("box: web-0 keeps exiting, and 199 more", 2 * MOST_SHOWN + 1)
    assert told.text.endswith(f"and {200 - MOST_SHOWN} more")


def test_one_after_the_other_wait_for_each_other() -> None:
    looks = Looks()
    for number in range(40):
        looks.see([problem(f"web-{one}") for one in range(number + 1)], STEP)
    looks.see([problem(f"web-{one}") for one in range(40)], 3600)
    assert sum(len(message.problems) for message in looks.told) == 40
    assert all(after.time - before.time >= BETWEEN for before, after in zip(looks.told, looks.told[1:], strict=False))


def test_one_that_comes_and_goes_is_told_less_and_less_often() -> None:
    looks = Looks()
    for _ in range(24 * 6):
        looks.see([problem()], 300)
        looks.see([], 300)
    assert len(looks.told) <= 8
    [over] = looks.see([], LONGEST_CALM + HOLD)
    assert over.over == (problem(),)


def test_time_for_which_nobody_looked_does_not_count_as_well() -> None:
    looks = Looks()
    looks.see([problem()], 60)
    looks.now += 86400
    looks.known = resumed(looks.known, looks.now)
    assert looks.see([], CALM - STEP) == []
    assert len(looks.see([problem()], 3600)) == 0
    assert [message.is_bad for message in looks.told] == [True]


def test_a_clock_that_is_put_back_tells_nothing_twice_and_loses_nothing() -> None:
    looks = Looks()
    looks.see([problem()], 600)
    looks.now -= 86400 * 300
    assert looks.see([problem()], 600) == []
    assert len(looks.see([problem(), problem("db-1")], 600)) == 1
    assert [one.subject for one in looks.see([], 600)[0].over] == ["web-1", "db-1"]
