"""What each listener should do now: its sources, what was found behind them, what is up → targets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from dom0.ambassador.declaration import Hold, Refuse, Rule
from dom0.ambassador.sources import Fixed, Named, Source, target
from dom0.forward.table import MOST_TARGETS, Down, Listener, Route, Target


class Wanted(msgspec.Struct, frozen=True):
    targets: tuple[Target, ...]
    down: Down | None = None


class Found(msgspec.Struct, frozen=True):
    """`addresses`: of names and of what the agent follows, by `finding`; `unhealthy` by `str(target)`."""

    addresses: Mapping[str, Collection[str]] = {}
    unhealthy: Collection[str] = ()
    is_own: Callable[[str], bool] = lambda _address: False
    held: Collection[Listener] = ()  # a rewire waits for its new target
    down_for: Mapping[Listener, float] = {}  # seconds


def finding(source: Source) -> str:
    """Under which key addresses are found for it; empty: it says itself."""
    if isinstance(source, Fixed):
        return ""
    return source.host if isinstance(source, Named) else source.key


def targets(sources: Collection[Source], found: Found, listening: Collection[Listener], rule: Rule) -> list[Target]:
    """Sorted, each address and port once, none of them one of our own listeners."""
    unique: dict[tuple[str, int], Target] = {}
    for source in sources:
        addresses = (source.address,) if isinstance(source, Fixed) else found.addresses.get(finding(source), ())
        for address in addresses:
            candidate = target(source, address)
            if not is_loop(candidate, rule.listener, found.is_own, listening):
                unique.setdefault((candidate.address, candidate.port), candidate)
    return sorted(unique.values())[:MOST_TARGETS]


def is_loop(
    candidate: Target, listener: Listener, is_own: Callable[[str], bool], listening: Collection[Listener]
) -> bool:
    return Listener(listener.protocol, candidate.port) in listening and is_own(candidate.address)


def wanted(rule: Rule, targets: Collection[Target], found: Found, last: Route | None) -> Wanted | None:
    """None: nothing was ever found and the rule does not say what then, so nothing listens.

    While no target is up the last ones stay (a probe that errs must not cut everybody off), unless the rule says what
    a new connection shall meet instead.
    """
    up = tuple(it for it in targets if rule.health is None or str(it) not in found.unhealthy)
    if up:
        return Wanted(up, Down.HOLD if rule.listener in found.held else None)
    before = tuple(it for it in last.targets if not targets or it in targets) if last else ()
    kept = before or tuple(targets)
    down = Down.HOLD if rule.listener in found.held else _down(rule, found)
    return Wanted(kept, down) if kept or down else None


def _down(rule: Rule, found: Found) -> Down | None:
    if isinstance(rule.down, Refuse):
        return Down.REFUSE
    if isinstance(rule.down, Hold):
        patient = not rule.down.seconds or found.down_for.get(rule.listener, 0.0) < rule.down.seconds
        return Down.HOLD if patient else Down.REFUSE
    return None


def is_up(rule: Rule, targets: Collection[Target], found: Found) -> bool:
    return any(rule.health is None or str(it) not in found.unhealthy for it in targets)
