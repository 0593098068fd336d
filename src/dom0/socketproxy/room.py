"""How many more objects a scope may make, as far as is known without listing what it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Kind = Literal["container", "network", "volume"]
Counted = Kind | Literal["port"]  # that the Engine chooses


class Room:
    """Never an overestimate: what is made in a scope is made through its server, and what goes only makes more room.

    While one server gives way to the next, what the one makes the other does not know: both count each time. So more
    than was granted is there only if both make the last one at once.
    """

    def __init__(self, is_alone: Callable[[], bool] = lambda: True) -> None:
        """`is_alone`: whether no other process serves the scope."""
        self._is_alone = is_alone
        self._was_alone = False  # when it was asked last
        self._left: dict[Counted, int] = {}

    def take(self, kind: Counted, count: int) -> bool:
        """Whether there is surely as much, which is taken then."""
        self._was_alone = self._is_alone()
        if not self._was_alone:
            self._left.clear()
        left = self._left.get(kind, 0)
        if left < count:
            return False
        self._left[kind] = left - count
        return True

    def found(self, kind: Counted, left: int) -> None:
        """By a look at what there is after `take` said no, what is about to be made too."""
        if self._was_alone:
            self._left[kind] = left
