"""What each listener should do now: its sources, what was found behind them, what is up → targets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from dom0.ambassador.declaration import Hold, Refuse, Rule
from dom0.ambassador.sources import Fixed, Followed, Source, parse_place
from dom0.forward.table import MOST_TARGETS, Down, Listener, Route, Target


class Wanted(msgspec.Struct, frozen=True):
    targets: tuple[Target, ...]
    down: Down | None = None


class Findings(msgspec.Struct, frozen=True):
    """`addresses`: of names and of what the agent follows, by their keys, on other nodes with their ports; `unhealthy`
    by `str(target)`.
    """

    addresses: Mapping[str, Collection[str]] = {}
    unhealthy: Collection[str] = ()
    is_own: Callable[[str], bool] = lambda _address: False
    listening: Collection[Listener] = ()  # all of ours
    held: Collection[Listener] = ()  # a rewire waits for its new target
    awaited: Collection[Listener] = ()  # a source without an address is being replaced, and not for too long
    down_for: Mapping[Listener, float] = {}  # seconds

    def behind(self, source: Source) -> tuple[Target, ...]:
        addresses = (source.address,) if isinstance(source, Fixed) else self.addresses.get(source.key, ())
        if isinstance(source, Followed) and source.is_far:
            return tuple(Target(place.address, place.port, source.weight) for place in map(parse_place, addresses))
        return tuple(Target(address, source.port, source.weight) for address in addresses)

    def is_loop(self, candidate: Target, listener: Listener) -> bool:
        return Listener(listener.protocol, candidate.port) in self.listening and self.is_own(candidate.address)

    def loops(self, sources: Iterable[Source], listener: Listener) -> list[Source]:
        """Those behind which is one of our own listeners."""
        return [source for source in sources if any(self.is_loop(it, listener) for it in self.behind(source))]

    def up(self, rule: Rule, targets: Collection[Target]) -> tuple[Target, ...]:
        return tuple(it for it in targets if rule.health is None or str(it) not in self.unhealthy)


def targets(sources: Collection[Source], rule: Rule, found: Findings) -> list[Target]:
    """Sorted, each address and port once, none of them one of our own listeners."""
    unique: dict[tuple[str, int], Target] = {}
    for source in sources:
        for candidate in found.behind(source):
            if not found.is_loop(candidate, rule.listener):
                unique.setdefault((candidate.address, candidate.port), candidate)
    return sorted(unique.values())[:MOST_TARGETS]


def wanted(rule: Rule, targets: Collection[Target], found: Findings, last: Route | None) -> Wanted | None:
    """None: no address was ever found and the rule does not say what to do then, so nothing listens.

    While no target is up the last ones stay (a probe that errs must not cut everybody off), unless the rule says what
    a new connection is to meet instead, or it is known that another one comes.
    """
    down = Down.HOLD if rule.listener in found.held else None
    if up := found.up(rule, targets):
        return Wanted(up, down)
    before = tuple(it for it in last.targets if not targets or it in targets) if last else ()
    kept = before or tuple(targets)
    if down is None and isinstance(rule.down, Refuse):
        down = Down.REFUSE
    elif down is None and isinstance(rule.down, Hold):
        is_patient = not rule.down.seconds or found.down_for.get(rule.listener, 0.0) < rule.down.seconds
        down = Down.HOLD if is_patient else Down.REFUSE
    elif down is None and rule.listener in found.awaited:
        down = Down.HOLD
    return Wanted(kept, down) if kept or down else None
