"""What becomes of the connections from before a change of targets: they go on, are sent on, are cut; and the counts.

Generations decide, never addresses: a drain concerns connections of numbers below the new one, so the present
generation is never touched, whatever address comes back.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

import msgspec

from dom0.errors import Dom0Error
from dom0.forward.dataplane import DataPlane, Flow
from dom0.forward.table import Listener, Protocol, Target, Udp

SETTLING = 3.0  # seconds in which a drain is repeated, for what was under way in the kernel while we looked
_UNANSWERED = "SYN_SENT"
ENDED = {"TIME_WAIT", "CLOSE"}  # conntrack's memory of connections that have ended
log = logging.getLogger(__name__)


class Drain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of the connections of one listener with a generation in [since, until), except those to `spared`.

    Unanswered connects are sent on, UDP moves if `udp` says so, and from `cut_at` on the rest is cut, again and again
    until `over_at`. `receipt` is the number of the receipt that counts it.
    """

    receipt: int
    listener: Listener
    since: int
    until: int
    spared: tuple[Target, ...] = ()
    udp: Udp = "move"
    cut_at: float | None = None  # ticks, as all times here; None: they go on until they end
    over_at: float = 0.0
    left: int = -1  # connections that there were when it was done last; -1: never

    def concerns(self, flow: Flow) -> bool:
        return (
            self.since <= flow.generation < self.until
            and flow.came_by == self.listener
            and all((flow.target.address, flow.target.port) != (it.address, it.port) for it in self.spared)
        )


class Due(msgspec.Struct, frozen=True):
    """What one drain wants done to the connections that are there now."""

    rescue: tuple[Flow, ...]  # unanswered connects, to be sent on
    move: tuple[Flow, ...]
    cut: tuple[Flow, ...]
    rest: tuple[Flow, ...]  # go on


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of connections, in numbers."""

    kept: int = 0
    ended: int = 0  # by themselves, while they were drained
    cut: int = 0
    rescued: int = 0  # unanswered connects that were sent on
    moved: int = 0  # UDP flows


class Tally(Counts, frozen=True, kw_only=True):
    """Of all drains with one receipt. `draining`: until when they have time, in whatever unit; 0: over, or never."""

    draining: float = 0.0


class Drained(msgspec.Struct, frozen=True):
    left: tuple[Drain, ...]  # to be done again
    over: tuple[Drain, ...]
    counts: dict[int, Tally]  # by receipt


def due(drain: Drain, flows: Iterable[Flow], ticks: float) -> Due:
    """Sort those of `flows` that the drain concerns by what is to be done to them at `ticks`."""
    rescue, move, cut, rest = list[Flow](), list[Flow](), list[Flow](), list[Flow]()
    is_cut = drain.cut_at is not None and ticks >= drain.cut_at
    for flow in flows:
        if flow.state in ENDED or not drain.concerns(flow):
            continue
        if flow.protocol is Protocol.UDP:
            (move if drain.udp == "move" else rest).append(flow)
        elif flow.state == _UNANSWERED:
            rescue.append(flow)
        else:
            (cut if is_cut else rest).append(flow)
    return Due(tuple(rescue), tuple(move), tuple(cut), tuple(rest))


def forecast(drains: Iterable[Drain], flows: Collection[Flow], ticks: float) -> Counts:
    """What would be done to `flows` at `ticks`."""
    each = [due(one, flows, ticks) for one in drains]
    return Counts(
        kept=sum(len(it.rest) for it in each),
        cut=sum(len(it.cut) for it in each),
        rescued=sum(len(it.rescue) for it in each),
        moved=sum(len(it.move) for it in each),
    )


async def drain(
    plane: DataPlane, drains: Iterable[Drain], flows: Collection[Flow], counts: Mapping[int, Tally], ticks: float
) -> Drained:
    """Do what is due to `flows` at `ticks`; the newest drain first, because the last decision counts.

    Counted is what `counts` has a receipt of. Raises Dom0Error.
    """
    counted = dict(counts)
    left: list[Drain] = []
    over: list[Drain] = []
    for one in sorted(drains, key=lambda it: -it.until):
        mine = due(one, flows, ticks)
        done = Counts(
            rescued=await plane.forget(mine.rescue) if mine.rescue else 0,
            moved=await plane.forget(mine.move) if mine.move else 0,
            cut=await _cut(plane, mine.cut) if mine.cut else 0,
            kept=len(mine.rest),
        )
        gone = {id(flow) for flow in (*mine.rescue, *mine.move, *mine.cut)}
        flows = [flow for flow in flows if id(flow) not in gone]
        is_over = ticks >= one.over_at
        if one.receipt in counted:
            counted[one.receipt] = _count(counted[one.receipt], one, done, is_over=is_over)
        if is_over:
            over.append(one)
        else:
            over_at = min(one.over_at, ticks + SETTLING) if one.cut_at is not None and not mine.rest else one.over_at
            left.append(msgspec.structs.replace(one, left=done.kept, over_at=over_at))
    return Drained(tuple(left), tuple(over), counted)


async def _cut(plane: DataPlane, flows: Collection[Flow]) -> int:
    """Connections whose silent ends cannot be reset are cut all the same."""
    try:
        return await plane.cut(flows)
    except Dom0Error as error:
        log.warning("%s", error.message)
        return len(flows)


def _count(before: Tally, drain: Drain, done: Counts, *, is_over: bool) -> Tally:
    """`done.kept`: how many there are still, of this drain."""
    is_first, has_time = drain.left < 0, before.draining > 0
    ended = max(0, drain.left - done.kept - done.cut) if has_time and not is_first else 0
    gone = ended + done.cut if has_time else 0
    is_over = not is_first and has_time and (is_over or (done.kept == 0 and before.kept <= gone))
    return Tally(
        kept=before.kept + done.kept if is_first else max(0, before.kept - gone),
        ended=before.ended + ended,
        cut=before.cut + done.cut,
        rescued=before.rescued + done.rescued,
        moved=before.moved + done.moved,
        draining=0.0 if is_over else before.draining,
    )
