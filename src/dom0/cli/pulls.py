"""How far pulls are, for people: in a few words, and again and again while they last."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from dom0 import terminal, times
from dom0.agent.status import PullStatus

TAKEN = "the Engine takes it"
_TOLD_EVERY = 30.0  # seconds, in a log


def describe(pull: PullStatus, now: float, then: str = TAKEN) -> str:
    """`now` in seconds since the epoch; `then`: what is done with it when all has come."""
    size = terminal.size(pull.size)
    words = [f"{pull.have / pull.size:.0%} of {size}" if pull.size else "asks for it"]
    note = f"; {pull.note}" if pull.note else ""
    if pull.waits_for:
        return f"{pull.image}: {words[0]}, waits {max(0.0, pull.waits_until - now):.0f}s: {pull.waits_for}{note}"
    if pull.size > pull.have:
        words.append(f"{terminal.size(int(pull.rate))}/s")
        words += [f"{times.ago(pull.left)} left"] if pull.left is not None else []
        words += [f"{pull.drops} drops"] if pull.drops else []
    elif pull.size:
        words.append(then)
    return f"{pull.image}: {', '.join(words)}{note}"


class StatusLine:
    """One line on standard error that changes where that is a terminal, else lines with `say` now and then."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False
        self._told = 0.0

    def show(self, pulls: tuple[PullStatus, ...], then: str = TAKEN) -> None:
        texts = [describe(pull, time.time(), then) for pull in pulls]
        if self._is_terminal and texts:
            terminal.say_over("; ".join(texts))
            self._is_shown = True
        elif not texts:
            self.clear()
        elif time.monotonic() - self._told >= _TOLD_EVERY or not self._told:
            self._told = time.monotonic()
            for text in texts:
                self._say(text)

    def clear(self) -> None:
        """Before something else is printed."""
        if self._is_shown:
            terminal.say_over("")
            self._is_shown = False
