"""Analyzes a boot record: when each stage began and ended, which one was slowest, how two boots differ. Pure.

Stages follow one another, and each begins where the one before it ended, but for those that run beside the others:
the network from when the host is up, services and the root container's health from when that container runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from dom0.host.boot_record import FIRMWARE, Mark, Record

READY = "ready"  # all is well: the end of a boot, not a stage
PROBLEM = "problem"  # an error that the text describes, not a stage; `problem:WHAT` of what is looked at once in a boot
SERVICE = "service:"
_BEGINS_WITH_THE_END_OF = {"network": "init", "healthy": "dom0"}  # and services like `healthy`


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds on the kernel's boot clock."""

    name: str
    began: float
    ended: float
    seconds: float
    text: str = ""
    beside: bool = False  # concurrent with others


class BootProblem(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    text: str


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """`ready` is when all was well, on the kernel's boot clock; None if it never was."""

    number: int
    running: bool
    written: float  # seconds since the epoch
    stages: tuple[Stage, ...]
    slowest: str  # name of a stage, "" if there is none
    firmware: float | None  # seconds before the kernel's clock began, None: unknown
    ready: float | None
    troubles: tuple[BootProblem, ...] = ()
    unreadable: int = 0

    @property
    def began(self) -> float:
        return -(self.firmware or 0.0)

    @property
    def ended(self) -> float:
        return max((stage.ended for stage in self.stages), default=0.0)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How long a stage took in two boots; None where it did not occur."""

    name: str
    before: float | None
    after: float | None

    @property
    def more(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)


def analyze(record: Record) -> Boot:
    marks: list[Mark] = []
    seen: set[str] = set()
    for mark in record.marks:  # without stages that occur again after `ready`, as of a restarted root container
        if READY not in seen or mark.stage not in seen | {PROBLEM}:
            marks.append(mark)
        seen.add(mark.stage)
    stages = tuple(_stages(mark for mark in marks if mark.stage != READY and not _is_problem(mark)))
    switched_on = next((mark.at for mark in marks if mark.stage == FIRMWARE and mark.at < 0), None)
    return Boot(
        number=record.number,
        running=record.running,
        written=record.written,
        stages=stages,
        slowest=max(stages, key=lambda stage: stage.seconds).name if stages else "",
        firmware=None if switched_on is None else -switched_on,
        ready=next((mark.at for mark in marks if mark.stage == READY), None),
        troubles=tuple(BootProblem(at=mark.at, text=mark.text) for mark in marks if _is_problem(mark)),
        unreadable=record.unreadable,
    )


def _is_problem(mark: Mark) -> bool:
    return mark.stage.partition(":")[0] == PROBLEM


def _stages(marks: Iterable[Mark]) -> Iterator[Stage]:
    ends: dict[str, float] = {}
    last = 0.0  # end of the last stage that was not concurrent
    for mark in marks:
        if mark.stage == FIRMWARE:
            yield _stage(mark, min(mark.at, 0.0), 0.0)
            continue
        after = _BEGINS_WITH_THE_END_OF.get(mark.stage, "dom0" if mark.stage.startswith(SERVICE) else "")
        if after:
            yield _stage(mark, ends.get(after, last), mark.at, beside=True)
        else:
            yield _stage(mark, last, mark.at)
            ends[mark.stage] = last = mark.at


def _stage(mark: Mark, began: float, ended: float, *, beside: bool = False) -> Stage:
    took = round(ended - began, 2)
    return Stage(name=mark.stage, began=began, ended=ended, seconds=took, text=mark.text, beside=beside)


def compare(before: Boot, after: Boot) -> tuple[Difference, ...]:
    """Stage by stage, in their order; a stage that occurred more than once is one sum."""
    ours, theirs = _totals(before), _totals(after)
    names = [*theirs, *(name for name in ours if name not in theirs)]
    rows = [Difference(name=name, before=ours.get(name), after=theirs.get(name)) for name in names]
    if before.ready is not None and after.ready is not None:
        ends = round(before.ready - before.began, 2), round(after.ready - after.began, 2)
        rows.append(Difference(name=READY, before=ends[0], after=ends[1]))
    return tuple(rows)


def _totals(boot: Boot) -> dict[str, float]:
    totals: dict[str, float] = {}
    for stage in boot.stages:
        totals[stage.name] = round(totals.get(stage.name, 0.0) + stage.seconds, 2)
    return totals
