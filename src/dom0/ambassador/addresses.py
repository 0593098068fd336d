"""Which addresses count for a name, answer after answer. Pure: lookup.py asks.

An answer in another order is the same answer. What is more than before is taken at once. What is missing from an
answer is gone only when it stays away: an address that counts is left when it has been missing longer than a hold, and
an answer that says nothing (no such name, no address, no reply) is no news for ten minutes. So neither a server that
shows a part of its list at a time nor one that is being restarted moves anybody. The Engine's own list of containers is
always whole: what is missing from it is gone at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

HOLD_MISSING = 2.0  # seconds
HOLD_SILENT = 600.0
SHORTEST = 1.0  # seconds between two queries; a TTL of 0 means: ask again soon
LONGEST = 60.0
LONGEST_ENGINE = 1.0  # the Engine's own server says 600 for containers that move in a second
RETRY = 2.0


class NameAnswer(msgspec.Struct, frozen=True):
    """Of one family. `learned` is False when nothing was: no such name, no address, no reply.

    `whole`: there are no others.
    """

    addresses: frozenset[str] = frozenset()
    learned: bool = False
    whole: bool = False


class Counting(msgspec.Struct, frozen=True):
    """`current` counts now. Times are ticks."""

    current: frozenset[str] = frozenset()
    seen: Mapping[str, float] = {}  # when an answer last had it
    silent_since: float | None = None


def known(addresses: Collection[str], ticks: float) -> Counting:
    """What counted before this process started still does."""
    return Counting(frozenset(addresses), dict.fromkeys(addresses, ticks))


def count(before: Counting, answer: NameAnswer, ticks: float) -> Counting:
    if not answer.learned:
        since = ticks if before.silent_since is None else before.silent_since
        current = before.current if ticks - since < HOLD_SILENT else frozenset()
        return Counting(current, before.seen, since)
    if answer.whole:
        return Counting(answer.addresses, dict.fromkeys(answer.addresses, ticks))
    seen = {
        address: at for address, at in before.seen.items() if ticks - at < HOLD_MISSING or address in before.current
    }
    seen |= dict.fromkeys(answer.addresses, ticks)
    missing = [address for address in before.current if address not in answer.addresses]
    if not missing:
        return Counting(answer.addresses, seen)
    if all(ticks - seen.get(address, ticks) < HOLD_MISSING for address in missing):
        return Counting(before.current, seen)
    recent = frozenset(address for address, at in seen.items() if ticks - at < HOLD_MISSING)
    return Counting(recent, {address: seen[address] for address in recent})


def is_waiting(counting: Counting, answer: NameAnswer) -> bool:
    """Something is missing and may be gone: ask again soon."""
    return answer.learned and bool(counting.current - answer.addresses)


def pause(ttl: float | None, *, engine: bool) -> float:
    """Seconds until the next query. `ttl` None: nothing was learned."""
    if ttl is None:
        return RETRY
    return min(max(ttl, SHORTEST), LONGEST_ENGINE if engine else LONGEST)
