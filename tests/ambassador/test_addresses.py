"""Which addresses count for a name: sets, not order; gone only when missing for long; silence is no news."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from dom0.ambassador.addresses import (
    HOLD_MISSING,
    HOLD_SILENT,
    LONGEST,
    LONGEST_ENGINE,
    RETRY,
    SHORTEST,
    Counting,
    NameAnswer,
    count,
    is_waiting,
    known,
    pause,
)

NOTHING = NameAnswer()


def answer(addresses: str) -> NameAnswer:
    return NameAnswer(frozenset(addresses.split()), learned=True)


def after(*told: tuple[float, str | NameAnswer], start: Counting | None = None) -> set[str]:
    """What counts after these answers at these ticks."""
    counting = start or Counting()
    for ticks, it in told:
        counting = count(counting, it if isinstance(it, NameAnswer) else answer(it), ticks)
    return set(counting.current)


def test_what_is_missing_from_a_whole_list_is_gone_at_once() -> None:
    whole = NameAnswer(frozenset({"10.0.0.2"}), learned=True, whole=True)
    assert after((0.0, "10.0.0.1"), (0.1, whole)) == {"10.0.0.2"}
    assert after((0.0, whole), (0.1, NOTHING)) == {"10.0.0.2"}


def test_the_first_answer_counts() -> None:
    assert after((0, "a b")) == {"a", "b"}


def test_another_order_is_the_same_answer() -> None:
    first = count(Counting(), answer("a b c"), 0)
    assert count(first, answer("c a b"), 1).current == first.current


def test_more_addresses_count_at_once() -> None:
    assert after((0, "a"), (1, "a b")) == {"a", "b"}


def test_an_address_that_is_missing_once_still_counts() -> None:
    assert after((0, "a"), (1, "b")) == {"a"}
    assert after((0, "a"), (1, "b"), (2, "a")) == {"a"}


def test_an_address_that_stays_away_is_left() -> None:
    assert after((0, "a"), (1, "b"), (1 + HOLD_MISSING, "b")) == {"b"}


def test_a_server_that_shows_a_part_at_a_time_moves_nobody_away() -> None:
    told = [(float(tick), "a b" if tick % 2 else "c d") for tick in range(20)]
    assert {"a", "b", "c", "d"} >= after(*told)
    assert all(after(*told[:end]) & {"a", "b", "c", "d"} for end in range(1, 20))


def test_silence_for_less_than_ten_minutes_is_no_news() -> None:
    assert after((0, "a"), (1, NOTHING), (HOLD_SILENT, NOTHING)) == {"a"}


def test_silence_for_longer_empties_it() -> None:
    assert after((0, "a"), (1, NOTHING), (1 + HOLD_SILENT, NOTHING)) == set()


def test_an_answer_in_between_begins_the_silence_anew() -> None:
    assert after((0, "a"), (1, NOTHING), (500, "a"), (501, NOTHING), (HOLD_SILENT + 400, NOTHING)) == {"a"}


def test_what_counted_before_the_start_counts_until_something_else_is_learned() -> None:
    start = known(["a"], 100)
    assert after((101, NOTHING), start=start) == {"a"}
    assert after((101, "b"), (101 + HOLD_MISSING, "b"), start=start) == {"b"}


def test_while_something_is_missing_the_next_question_comes_soon() -> None:
    counting = count(count(Counting(), answer("a"), 0), answer("b"), 1)
    assert is_waiting(counting, answer("b"))
    assert not is_waiting(counting, answer("a"))
    assert not is_waiting(counting, NOTHING)


def test_the_time_to_live_has_a_floor_and_a_ceiling() -> None:
    assert pause(0, engine=False) == SHORTEST
    assert pause(30, engine=False) == 30
    assert pause(86400, engine=False) == LONGEST
    assert pause(600, engine=True) == LONGEST_ENGINE
    assert pause(None, engine=True) == RETRY


ANSWERS = st.lists(
    st.one_of(st.just(NOTHING), st.frozensets(st.sampled_from("abc")).map(lambda it: NameAnswer(it, learned=True)))
)


@given(ANSWERS)
def test_what_counts_was_told_and_is_only_lost_to_something_else(answers: Iterable[NameAnswer]) -> None:
    counting, told = Counting(), set[str]()
    for tick, it in enumerate(answers):
        before = counting.current
        counting = count(counting, it, float(tick))
        told |= it.addresses
        assert counting.current <= told
        if not it.learned:
            assert counting.current == before
