"""How many more objects a scope may make, as far as is known without listing what it has."""

from __future__ import annotations

from typing import Literal

Kind = Literal["container", "network", "volume"]


class Room:
    """Never an overestimate: what is made in a scope is made through its server, and what goes only makes more room.

    While one server gives way to the next, each knows of its own.
    """

    def __init__(self) -> None:
        self._left: dict[Kind, int] = {}

    def take(self, kind: Kind, count: int) -> bool:
        """Whether there is surely as much, which is taken then."""
        left = self._left.get(kind, 0)
        if left < count:
            return False
        self._left[kind] = left - count
        return True

    def found(self, kind: Kind, left: int) -> None:
        """By a look at what there is, what is about to be made too."""
        self._left[kind] = left
