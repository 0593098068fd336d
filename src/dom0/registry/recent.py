"""What is known of blobs, by digest, for a limited number of them: the mirror of a long-lived agent is always asked for
others.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

MOST = 1024


def remember(known: dict[str, T], digest: str, what: T, most: int = MOST) -> None:
    """What was longest not remembered anew goes."""
    known.pop(digest, None)
    known[digest] = what
    while len(known) > most:
        del known[next(iter(known))]
