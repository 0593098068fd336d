"""How long is waited."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dom0.registry import patience
from dom0.registry.patience import Allowance, pause, silence

SECONDS = st.floats(0, 1e6)
SHARE = st.floats(0, 1)


def test_a_connection_that_broke_is_made_again_at_once() -> None:
    assert pause(0, 100.0, 1.0) == 0.0


@given(st.integers(1, 10**6), SECONDS, SHARE)
def test_a_pause_has_bounds(misses: int, nothing_for: float, share: float) -> None:
    assert 0.9 * patience.FIRST_PAUSE <= pause(misses, nothing_for, share) <= 1.1 * patience.LONGEST_PAUSE


@given(st.integers(1, 100), st.floats(6, 500), SHARE)
def test_the_end_of_an_outage_is_noticed_late_by_a_small_share_of_it(misses: int, lasts: float, share: float) -> None:
    assert pause(misses, lasts, share) <= 0.056 * lasts


def test_a_line_that_is_slow_to_answer_gets_more_time_at_each_try() -> None:
    assert [silence(misses) for misses in range(8)] == [5, 5, 5, 5, 10, 20, 30, 30]
    assert silence(10**9) == patience.LONGEST_SILENCE


@given(st.floats(1e3, 1e9), st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 5)), min_size=1))
def test_a_limit_is_kept_over_any_time(rate: float, pieces: list[tuple[int, float]]) -> None:
    allowance, now, came = Allowance(rate), 0.0, 0
    for count, passes in pieces:
        now += passes
        came += count
        now += allowance.take(count, now)
        assert came <= rate * (now + patience.BURST) * 1.0001 + 1


def test_time_in_which_nothing_came_is_not_saved_up() -> None:
    allowance = Allowance(1000.0)
    assert allowance.take(1000, 3600.0) == 1.0 - patience.BURST


def test_without_a_limit_nothing_waits() -> None:
    assert Allowance(0).take(1 << 40, 0.0) == 0.0
