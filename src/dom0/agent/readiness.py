"""What the machine knows of its containers and the Engine does not say: which of their starts count as ready."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dom0.plan.hooks import has_post_start
from dom0.plan.memory import Memory
from dom0.plan.planner import Plan


class ReadyStarts(msgspec.Struct, frozen=True):
    """Of the containers of `project` ("" before the first generation), by ID.

    `gated`: the start for which its health gate has passed. `post_started`, of those that have hooks: the start for
    which they have succeeded (0: none yet).
    """

    project: str = ""
    gated: Mapping[str, float] = {}
    post_started: Mapping[str, float] = {}


class Readiness:
    """The machine sets `now` when it goes on with a generation and after every plan; ambassadors read it."""

    def __init__(self) -> None:
        self.now = ReadyStarts()


def ready_starts(project: str, plan: Plan | None, memory: Memory) -> ReadyStarts:
    if plan is None:
        return ReadyStarts(project, memory.health_passed)
    hooked = [p.container.id for p in plan.slots if p.container and has_post_start(p.container, p.slot)]
    return ReadyStarts(project, memory.health_passed, {id_: memory.post_started.get(id_, 0.0) for id_ in hooked})
