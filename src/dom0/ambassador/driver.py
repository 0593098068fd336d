"""Carry out a change on a plane: write it to the state file, switch; drain old connections. rewire.py decides.

State file and plane agree in the end: killed before the switch, the next start makes it; refused by the plane, the
former table is in force and in the file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from dom0.ambassador.rewire import Change
from dom0.ambassador.state import StateFile, Stored, moment
from dom0.errors import Dom0Error
from dom0.forward.dataplane import DataPlane, Flow
from dom0.forward.drain import Drain, Tally, drain

REMEMBERED = 3600.0  # seconds that State has what is done here
MOST_PAST = 64


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


async def drain_old(plane: DataPlane, stored: Stored) -> Stored:
    """Do what is due to old connections now, and count it in the receipts."""
    flows, ticks = await old_flows(plane, stored, stored.drains), moment().ticks
    numbers = {it.receipt for it in stored.drains}
    counts = {
        it.number: msgspec.convert(it, Tally, from_attributes=True) for it in stored.receipts if it.number in numbers
    }
    done = await drain(plane, stored.drains, flows, counts, ticks)
    receipts = tuple(
        msgspec.structs.replace(it, **msgspec.structs.asdict(done.counts[it.number])) if it.number in numbers else it
        for it in stored.receipts
    )
    past = tuple(it for it in (*stored.past, *done.over) if ticks < it.over_at + REMEMBERED)[-MOST_PAST:]
    return msgspec.structs.replace(stored, drains=done.left, past=past, receipts=receipts)


async def old_flows(plane: DataPlane, stored: Stored, drains: Iterable[Drain]) -> list[Flow]:
    generations = {
        generation
        for it in drains
        for generation in stored.generations(it.listener)
        if it.since <= generation < it.until
    }
    if not generations:
        return []
    return [flow for flow in await plane.flows(sorted(generations)) if any(it.concerns(flow) for it in drains)]


async def forget_ended(plane: DataPlane, stored: Stored) -> Stored:
    """Old generations without connections need not be listed any more."""
    wanted = sorted({generation for generations in stored.old.values() for generation in generations})
    if not wanted:
        return stored
    alive = {flow.generation for flow in await plane.flows(wanted)}
    drained = {str(it.listener) for it in stored.drains}
    old = {
        key: tuple(it for it in generations if it in alive or key in drained) for key, generations in stored.old.items()
    }
    return msgspec.structs.replace(stored, old={key: generations for key, generations in old.items() if generations})
