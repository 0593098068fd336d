"""What is said of a fetch while it goes on."""

from __future__ import annotations

from dom0.registry.progress import Meter, Waiting

LATER, MUCH_LATER = Waiting("503", 10.0), Waiting("503", 20.0)


def meter(size: int) -> Meter:
    made = Meter()
    made.size = size
    return made


def came(meter: Meter, count: int, now: float) -> None:
    meter.came(count, now)
    meter.have += count


def test_rate_and_time_left_come_from_what_came_of_late() -> None:
    fetching = meter(10_000)
    for second in range(40):
        came(fetching, 100 if second < 20 else 200, float(second + 1))
    found = fetching.progress(40.0)
    assert 180 <= found.rate <= 210
    assert found.left is not None
    assert found.left == (10_000 - 6_000) / found.rate


def test_nothing_can_be_said_of_the_time_while_nothing_comes() -> None:
    fetching = meter(1000)
    came(fetching, 100, 1.0)
    found = fetching.progress(60.0)
    assert (found.rate, found.left) == (0.0, None)


def test_nothing_is_left_of_what_is_whole() -> None:
    fetching = meter(100)
    came(fetching, 100, 1.0)
    assert fetching.progress(1000.0).left == 0.0


def test_it_waits_when_all_do_and_until_the_first_goes_on() -> None:
    fetching = meter(100)
    fetching.works(1)
    fetching.waits(2, LATER)
    assert fetching.progress(0.0).waiting is None
    fetching.waits(1, MUCH_LATER)
    assert fetching.progress(0.0).waiting == LATER
    fetching.ends(2)
    assert fetching.progress(0.0).waiting == MUCH_LATER
    fetching.works(1)
    assert fetching.progress(0.0).waiting is None
