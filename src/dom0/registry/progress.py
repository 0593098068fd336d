"""How far a fetch is, as values for people and programs."""

from __future__ import annotations

from collections import deque

import msgspec

WINDOW = 20.0  # seconds that the rate is of
_STEP = 0.5  # seconds between two entries of it


class Waiting(msgspec.Struct, frozen=True):
    """Nothing is asked until `until`, seconds since the epoch."""

    why: str
    until: float


class FetchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """`size` and `have` are bytes, `rate` bytes per second; `left` seconds, None where it cannot be said.

    `drops`: requests that ended before all of their bytes had come.
    """

    size: int
    have: int
    rate: float
    left: float | None
    drops: int
    waiting: Waiting | None


class Meter:
    """Counts; times are seconds of a clock that does not jump, but those of `Waiting`."""

    def __init__(self) -> None:
        self.size = 0
        self.have = 0
        self.received = 0  # bytes that came
        self.drops = 0
        self.note = ""  # what there is to know beside how far it is
        self._came: deque[tuple[float, int]] = deque()  # time, and how much had come by then
        self._waiting: dict[int, Waiting | None] = {}

    def came(self, count: int, now: float) -> None:
        """So many bytes more."""
        self.received += count
        if not self._came or now - self._came[-1][0] >= _STEP:
            self._came.append((now, self.received - count))
        while len(self._came) > 1 and now - self._came[1][0] > WINDOW:
            self._came.popleft()

    def works(self, worker: int) -> None:
        self._waiting[worker] = None

    def waits(self, worker: int, waiting: Waiting) -> None:
        self._waiting[worker] = waiting

    def ends(self, worker: int) -> None:
        self._waiting.pop(worker, None)

    def progress(self, now: float) -> FetchProgress:
        # Over the time that there is something of, so that an outage is seen at once and forgotten in time.
        recent = [entry for entry in self._came if now - entry[0] <= WINDOW] or [(now, self.received)]
        since, then = recent[0]
        rate = (self.received - then) / max(now - since, _STEP)
        left = (self.size - self.have) / rate if rate else None
        states = tuple(self._waiting.values())
        waiting = [each for each in states if each is not None]
        return FetchProgress(
            size=self.size,
            have=self.have,
            rate=rate,
            left=0.0 if self.have >= self.size else left,
            drops=self.drops,
            # The one that ends first, if nobody works.
            waiting=min(waiting, key=lambda each: each.until) if waiting and None not in states else None,
        )
