"""Carry out a change on a plane: remember it, switch; treat old connections, count them. What to do is rewire.py's.

However it ends, file and plane agree or are brought to agree: killed before the switch, the next start makes it;
refused by the plane, the former table is in force and in the file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable

import msgspec

from dom0.ambassador.messages import Receipt
from dom0.ambassador.rewire import SETTLING, Change, concerns, due
from dom0.ambassador.state import StateFile, Stored, moment
from dom0.errors import Dom0Error
from dom0.forward.dataplane import DataPlane, Flow
from dom0.forward.drain import Drain

REMEMBERED = 3600.0  # seconds that State has what is done here
MOST_PAST = 64
log = logging.getLogger(__name__)


async def switch(plane: DataPlane, file: StateFile, before: Stored, change: Change) -> Stored:
    """Raises Dom0Error if the plane refuses the table: its former one and `before` stand then, see `spent`."""
    file.write(change.stored)
    began = time.perf_counter()
    try:
        await plane.set(change.stored.table)
    except Dom0Error:
        file.write(spent(before, change))
        raise
    took = round((time.perf_counter() - began) * 1000, 3)
    receipts = tuple(
        msgspec.structs.replace(it, switch_ms=took) if it.number in change.receipts else it
        for it in change.stored.receipts
    )
    return msgspec.structs.replace(change.stored, receipts=receipts)


def spent(before: Stored, change: Change) -> Stored:
    """`before`, with the generations of a change that did not come about never to be given again."""
    return msgspec.structs.replace(before, generation=change.stored.generation)


async def drain(plane: DataPlane, stored: Stored) -> Stored:
    """Do what is due to old connections now, and count it; newest rewire first, so that its word counts."""
    flows = await old_flows(plane, stored, stored.drains)
    ticks = moment().ticks
    left: list[Drain] = []
    over: list[Drain] = []
    receipts = {it.number: it for it in stored.receipts}
    for drain in sorted(stored.drains, key=lambda it: -it.until):
        mine = due(drain, flows, ticks)
        rescued = await plane.forget(mine.rescue) if mine.rescue else 0
        moved = await plane.forget(mine.move) if mine.move else 0
        cut = await _cut(plane, mine.cut) if mine.cut else 0
        gone = {id(flow) for flow in (*mine.rescue, *mine.move, *mine.cut)}
        flows = [flow for flow in flows if id(flow) not in gone]
        after = _progress(drain, len(mine.rest), ticks)
        if receipt := receipts.get(drain.receipt):
            ended = 0 if drain.left < 0 else max(0, drain.left - len(mine.rest) - cut)
            receipts[receipt.number] = _count(receipt, drain, len(mine.rest), rescued, moved, cut, ended, after)
        if after is None:
            over.append(drain)
        else:
            left.append(after)
    past = tuple(it for it in (*stored.past, *over) if ticks < it.over_at + REMEMBERED)[-MOST_PAST:]
    return msgspec.structs.replace(stored, drains=tuple(left), past=past, receipts=tuple(receipts.values()))


async def _cut(plane: DataPlane, flows: Collection[Flow]) -> int:
    """What cannot be told to silent ends is cut all the same; State has the right that is missing."""
    try:
        return await plane.cut(flows)
    except Dom0Error as error:
        log.warning("%s", error.message)
        return len(flows)


async def old_flows(plane: DataPlane, stored: Stored, drains: Iterable[Drain]) -> list[Flow]:
    generations = {
        generation
        for drain in drains
        for generation in stored.generations(drain.listener)
        if drain.since <= generation < drain.until
    }
    if not generations:
        return []
    return [flow for flow in await plane.flows(sorted(generations)) if any(concerns(drain, flow) for drain in drains)]


def _progress(drain: Drain, rest: int, ticks: float) -> Drain | None:
    """None: it is over."""
    if ticks >= drain.over_at:
        return None
    nothing_left = drain.cut_at is not None and rest == 0
    over_at = min(drain.over_at, ticks + SETTLING) if nothing_left else drain.over_at
    return msgspec.structs.replace(drain, left=rest, over_at=over_at)


def _count(
    receipt: Receipt,
    drain: Drain,
    rest: int,
    rescued: int,
    moved: int,
    cut: int,
    ended: int,
    after: Drain | None,
) -> Receipt:
    first = drain.left < 0
    is_drain = receipt.draining > 0
    kept = receipt.kept + rest if first else receipt.kept - (ended + cut if is_drain else 0)
    over = is_drain and (after is None or (rest == 0 and receipt.kept <= ended + cut))
    return msgspec.structs.replace(
        receipt,
        rescued=receipt.rescued + rescued,
        moved=receipt.moved + moved,
        cut=receipt.cut + cut,
        ended=receipt.ended + (ended if is_drain else 0),
        kept=max(0, kept),
        draining=0.0 if over and not first else receipt.draining,
    )


async def forget_ended(plane: DataPlane, stored: Stored) -> Stored:
    """Old generations without connections are asked after no more."""
    wanted = sorted({generation for generations in stored.old.values() for generation in generations})
    if not wanted:
        return stored
    alive = {flow.generation for flow in await plane.flows(wanted)}
    treated = {str(it.listener) for it in stored.drains}
    old = {
        key: tuple(it for it in generations if it in alive or key in treated) for key, generations in stored.old.items()
    }
    return msgspec.structs.replace(stored, old={key: generations for key, generations in old.items() if generations})
