"""Nodes of a farm that are lost, as problems for people. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from dom0.farms.rollout import REBOOT_WITHIN, SILENT, RolloutState
from dom0.health import Problem
from dom0.times import moment

CODE = "node-lost"
TOGETHER = 60.0  # seconds; a node has a heartbeat each minute


def find_lost(state: RolloutState, silent: Mapping[str, float], lasting: Collection[str]) -> list[str]:
    """Those that are silent for longer than they may, and those that fell silent within a minute of them: what the
    power went out for is lost at once. Nobody waits for a node that is drained.

    `silent`: for how many seconds each node has been so, while a server ran; `lasting`: nodes that were lost before,
    and have said nothing since.
    """
    rebooting = {lock.id for lock in state.locks if not lock.foreign}
    overdue = {
        name: math.inf if name in lasting else seconds - (REBOOT_WITHIN if name in rebooting else SILENT)
        for name, seconds in silent.items()
        if name not in state.drained
    }
    last = min((by for by in overdue.values() if by >= 0), default=math.inf)
    return [name for name, by in overdue.items() if by >= last - TOGETHER]


def as_problem(name: str, last: float) -> Problem:
    """`last`: when it was heard of, in seconds since the epoch."""
    return Problem(
        code=CODE,
        subject=name,
        title=f"node {name} is lost",
        hint=f"heard of last at {moment(last)}; has it power and network? Not to be told of it: dom0 farm drain {name}",
        since=last,
    )
