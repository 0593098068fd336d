"""What a rewire changes: the next table, the drains of old connections, the receipt. Pure.

A change that nobody asked for by name (DNS, a container that moved, health) spares connections whose target is still
one; a rewire that was asked for spares none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from dom0.ambassador.declaration import DrainFor, Keep, Policy
from dom0.ambassador.desired import Wanted
from dom0.ambassador.messages import Receipt
from dom0.ambassador.sources import Source
from dom0.ambassador.state import MOST_RECEIPTS, Moment, Stored, Undoable
from dom0.forward.drain import SETTLING, Drain
from dom0.forward.table import Listener, Route, Target, Udp, table

MOST_OLD = 64  # former generations of one listener that are remembered


class Policies(msgspec.Struct, frozen=True):
    """For old connections of one listener."""

    existing: Policy
    udp: Udp


class TableChange(msgspec.Struct, frozen=True):
    stored: Stored  # with the next table, drains and receipts that are counted later
    receipts: tuple[int, ...]  # numbers of the new ones


def adapt(
    stored: Stored,
    wants: Mapping[Listener, Wanted],
    policies: Mapping[Listener, Policies],
    *,
    cause: str,
    at: Moment,
    others: Collection[Listener] = (),
) -> TableChange | None:
    """Follow what was found. A generation is new only where the targets are; listeners without a want go away.

    `others`: listeners behind whose unchanged addresses somebody else is now. None: nothing is different.
    """
    routes = stored.table.by_listener
    targets = {route.listener: set(route.targets) for route in stored.table.routes}
    changed = [it for it, want in wants.items() if it in others or targets.get(it) != set(want.targets)]
    after = _with_table(stored, wants, changed)
    if after.table == stored.table and not changed:
        return None
    receipts: list[int] = []
    groups: dict[tuple[str, str], list[Listener]] = {}
    for listener in changed:
        if listener in routes and routes[listener].targets:
            groups.setdefault((str(policies[listener].existing), policies[listener].udp), []).append(listener)
    for listeners in groups.values():
        spared = {it: () if it in others else wants[it].targets for it in listeners}
        after = _with_receipt(stored, after, listeners, policies[listeners[0]], cause, at, spared)
        receipts.append(after.receipt)
    return TableChange(after, tuple(receipts))


def replace(
    stored: Stored,
    wishes: Mapping[Listener, tuple[Source, ...]],
    wants: Mapping[Listener, Wanted],
    policies: Policies,
    *,
    at: Moment,
) -> TableChange:
    """Rewire the listeners of `wishes`; `wants` are all listeners' wants, theirs by the new sources."""
    listeners = sorted(wishes)
    after = _with_table(stored, wants, listeners)
    routes = stored.table.by_listener
    before = [routes[it] for it in listeners if it in routes]
    undoable = Undoable(
        receipt=stored.receipt + 1,
        sources={str(it): stored.wishes.get(str(it), ()) for it in listeners},
        targets={str(route.listener): route.targets for route in before},
        generations={str(route.listener): route.generation for route in before},
    )
    after = msgspec.structs.replace(
        after,
        wishes=after.wishes | {str(it): sources for it, sources in wishes.items()},
        undo=(*stored.undo, undoable)[-MOST_RECEIPTS:],
    )
    after = _with_receipt(stored, after, listeners, policies, "rewire", at, {})
    return TableChange(after, (after.receipt,))


def last_rewire(stored: Stored, listeners: Collection[Listener]) -> Undoable | None:
    """The last one not undone that concerned one of `listeners`."""
    keys = {str(it) for it in listeners}
    return next((it for it in reversed(stored.undo) if keys & it.sources.keys()), None)


def wishes_before(stored: Stored, undoable: Undoable) -> dict[str, tuple[Source, ...]]:
    others = {key: sources for key, sources in stored.wishes.items() if key not in undoable.sources}
    return others | {key: sources for key, sources in undoable.sources.items() if sources}


def undo(
    stored: Stored, undoable: Undoable, wants: Mapping[Listener, Wanted], policies: Policies, *, at: Moment
) -> TableChange:
    """Back to before `undoable`: connections made since are drained, those of before go on, drained ones too."""
    listeners = sorted(it for it in wants if str(it) in undoable.sources)
    after = _with_table(stored, wants, listeners)
    receipts = tuple(
        msgspec.structs.replace(it, undone=True, draining=0.0) if it.number == undoable.receipt else it
        for it in stored.receipts
    )
    after = msgspec.structs.replace(
        after,
        wishes=wishes_before(stored, undoable),
        undo=tuple(it for it in stored.undo if it != undoable),
        drains=tuple(it for it in stored.drains if it.receipt != undoable.receipt),
        past=tuple(it for it in stored.past if it.receipt != undoable.receipt),
        receipts=receipts,
    )
    since = {it: undoable.generations.get(str(it), 0) + 1 for it in listeners}
    after = _with_receipt(stored, after, listeners, policies, "undo", at, {}, since)
    return TableChange(after, (after.receipt,))


def _with_table(stored: Stored, wants: Mapping[Listener, Wanted], changed: Collection[Listener]) -> Stored:
    """Give each of `changed` a generation, and remember the ones that are left."""
    number, before, renewed = stored.generation, stored.table.by_listener, set(changed)
    routes: list[Route] = []
    for listener in sorted(wants):
        want = wants[listener]
        if listener in renewed:
            number += 1
            routes.append(Route(listener, number, want.targets, want.down))
        else:
            routes.append(msgspec.structs.replace(before[listener], down=want.down))
    old = dict(stored.old)
    for route in stored.table.routes:
        if route.listener in renewed or route.listener not in wants:
            old[str(route.listener)] = (*old.get(str(route.listener), ()), route.generation)[-MOST_OLD:]
    after = table(routes)
    revision = stored.revision + (after != stored.table)
    return msgspec.structs.replace(stored, generation=number, table=after, old=old, revision=revision)


def _with_receipt(
    before: Stored,
    after: Stored,
    listeners: Collection[Listener],
    policies: Policies,
    cause: str,
    at: Moment,
    spared: Mapping[Listener, tuple[Target, ...]],
    since: Mapping[Listener, int] | None = None,
) -> Stored:
    number = after.receipt + 1
    now, then = after.table.by_listener, before.table.by_listener
    routes = [now[it] for it in listeners]
    former = [then[it] for it in listeners if it in then]
    draining = policies.existing.seconds if isinstance(policies.existing, DrainFor) else 0.0
    receipt = Receipt(
        number=number,
        at=at.now,
        cause=cause,
        listeners=tuple(str(route.listener) for route in routes),
        generations=tuple(route.generation for route in routes),
        before=_names(former),
        after=_names(routes),
        existing=str(policies.existing),
        udp=policies.udp,
        switch_ms=0.0,
        draining=at.now + draining if draining else 0.0,
    )
    cut_at = None if isinstance(policies.existing, Keep) else at.ticks + draining
    drains = tuple(
        Drain(
            receipt=number,
            listener=route.listener,
            since=(since or {}).get(route.listener, 0),
            until=route.generation,
            spared=spared.get(route.listener, ()),
            udp=policies.udp,
            cut_at=cut_at,
            over_at=max(at.ticks, cut_at or 0.0) + SETTLING,
        )
        for route in routes
    )
    return msgspec.structs.replace(
        after,
        receipt=number,
        receipts=(*after.receipts, receipt)[-MOST_RECEIPTS:],
        causes=after.causes | {cause: after.causes.get(cause, 0) + 1},
        drains=(*after.drains, *drains),
    )


def _names(routes: Iterable[Route]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(target) for route in routes for target in route.targets))
