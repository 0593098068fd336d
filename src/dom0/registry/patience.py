"""How long to wait: for a byte, before the next try, for a limit. Pure: times come from outside, in seconds."""

from __future__ import annotations

FIRST_SILENCE, LONGEST_SILENCE = 5.0, 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
SHARE = 0.05  # of an outage so far, before the next try: it is noticed that late that it is over
LONGEST_ASKED = 3600.0  # that a registry can make us wait before it is asked again
BURST = 0.25  # seconds of a limit that may come at once


def silence(misses: int) -> float:
    """Without a byte, after which a connection is given up, when as many tries before brought nothing.

    It grows with the misses: where a round trip takes longer than the first limit, no answer would ever be in time.
    """
    return min(LONGEST_SILENCE, FIRST_SILENCE * 2.0 ** max(0, min(misses, 8) - 3))


def pause(misses: int, nothing_for: float, random: float) -> float:
    """Before the next try, when `misses` in a row brought nothing in `nothing_for`; `random` is from 0 to 1.

    The first try is made at once: a connection that broke says nothing of the next one.
    """
    if misses == 0:
        return 0.0
    return min(LONGEST_PAUSE, max(FIRST_PAUSE, SHARE * nothing_for)) * (0.9 + 0.2 * random)


class Allowance:
    """A limit of `rate` bytes a second for all connections together; 0: there is none."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid_until = 0.0

    def take(self, count: int, now: float) -> float:
        """Seconds to wait after `count` bytes have come."""
        if not self._rate:
            return 0.0
        self._paid_until = max(self._paid_until, now - BURST) + count / self._rate
        return max(0.0, self._paid_until - now)
