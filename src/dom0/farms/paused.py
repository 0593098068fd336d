"""Roles of a farm that are paused because something failed, as problems for people. Pure.

It is over when nobody has paused the role any more and all is well there: a node that tries again may fail again.
"""

from __future__ import annotations

from collections.abc import Mapping

from dom0.farms.rollout import RolloutStep
from dom0.health import Problem

CODE = "role-paused"


def find_paused(step: RolloutStep, told: Mapping[str, Problem]) -> list[Problem]:
    """`told`: what people know of, by role. A pause that a person has asked for is told to nobody."""
    found = []
    for role in step.roles:
        pause = step.state.pauses.get(role)
        if pause is not None and pause.content:
            title = f"role {role} is paused: {pause.why}"
            found.append(Problem(code=CODE, subject=role, title=title, hint=ways_on(role), since=pause.since))
        elif role in told and role in step.unwell:
            found.append(told[role])
    return found


def ways_on(role: str) -> str:
    """What ends a pause."""
    return f"dom0 farm resume {role}, or another revision: dom0 farm rollback, dom0 farm up"
