"""The agent's part of the boot record: when each service was first ready in this boot, and when all was well.

The host's programs begin the record; where there is none, this is silent. What goes wrong with it ends our part of
it, never a turn of the loop: the file is in memory, written a few times in a boot, and nothing here waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.host.boot import READY, SERVICE, Boot, analyze
from dom0.host.boot_record import Mark, append, read, read_all
from dom0.names import run_directory, state_directory
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan

MOST_BOOTS = 20

log = logging.getLogger(__name__)


def boot_clock() -> float:
    """Seconds since the kernel's start, also those asleep; the first number of /proc/uptime."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def last_boots() -> list[Boot]:
    """Of which there is a record, oldest first, the one that the machine is in last. Raises Dom0Error."""
    try:
        records = read_all(run_directory(), state_directory())
    except OSError as error:
        raise Dom0Error(f"{error.filename}: cannot be read: {error.strerror}", hint="mend the disk: dmesg") from error
    return [analyze(record) for record in records[-MOST_BOOTS:]]


class BootNotes:
    """Tell it every plan. An agent that starts again in the same boot goes on where the one before ended."""

    def __init__(self, record: Path, *, clock: Callable[[], float] = boot_clock) -> None:
        self._record = record
        self._clock = clock
        self._noted: set[str] | None = None  # stages in the record, once we have read it
        self._waited: set[str] = set()  # services that were seen on their way
        self._over = False

    def note(self, plan: Plan) -> None:
        if self._over:
            return
        try:
            if self._noted is None:
                found = read(self._record)
                self._noted = {mark.stage for mark in found.marks} if found else {READY}
            fresh = [stage for stage in self._reached(plan) if stage not in self._noted]
            self._over = READY in self._noted or READY in fresh
            if fresh and READY not in self._noted:
                now = self._clock()
                append(self._record, [Mark(at=now, stage=stage) for stage in fresh])
                self._noted |= set(fresh)
        except OSError as error:
            log.debug("boot record: %s", error)
            self._over = True

    def _reached(self, plan: Plan) -> Iterator[str]:
        service_of = attrgetter("slot.service")
        for service, slots in groupby(sorted(plan.slots, key=service_of), key=service_of):
            phases = {slot.phase for slot in slots}
            if not phases <= {Phase.READY, Phase.COMPLETED, Phase.SCHEDULED}:
                self._waited.add(service)
            elif Phase.READY in phases or service in self._waited:  # else jobs that completed in an earlier boot
                yield f"{SERVICE}{service}"
        if plan.well and plan.settled:
            yield READY
