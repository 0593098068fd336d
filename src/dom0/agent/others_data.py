"""Data that the services of another project have written below the project's directory, which all projects share.

Where the services of this one would write, too, it would be taken for theirs: two databases in turn on one `./data`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dom0.agent.generations import Generations
from dom0.agent.placement import Placement
from dom0.agent.three_way import Action
from dom0.agent.versions import spelled
from dom0.errors import InUse
from dom0.plan.desired import Desired
from dom0.plan.writers import written


def require_no_data_of_others(state: Path, desired: Desired) -> None:
    """Asked are the generations since the project ran last. Raises InUse."""
    place = state / "project"
    ours = frozenset(_directories(place, desired))
    if not ours:
        return
    placed = _placed(place)
    for generation in Generations(state).all():
        other = generation.desired.project
        if other == desired.project:
            return
        for directory in _common(ours, frozenset(_directories(place, generation.desired))):
            if _has_data(place, directory, placed):
                raise InUse(
                    f"{desired.project}: would write into {directory}, where services of {other} have left data",
                    hint=f"keep it for {other}: mv {directory} {directory}-of-{other}",
                )


def _directories(place: Path, desired: Desired) -> Iterator[Path]:
    for slot in desired.slots:
        yield from (path for path in map(Path, written(slot)) if place in path.parents)


def _common(ours: frozenset[Path], theirs: frozenset[Path]) -> Iterator[Path]:
    """Of two directories that are the same, or one in the other, the inner one."""
    for own in sorted(ours):
        for other in sorted(theirs):
            if own == other or other in own.parents:
                yield own
            elif own in other.parents:
                yield other


def _placed(place: Path) -> frozenset[str]:
    """What was placed and is as it was."""
    placement = Placement(place)
    steps = placement.plan({}, placement.record(None))
    return frozenset(spelled(path) for path, step in steps.items() if step.action is Action.REMOVE)


def _has_data(place: Path, directory: Path, placed: frozenset[str]) -> bool:
    for parent, _, names in os.walk(directory):
        if any(spelled(os.path.relpath(os.path.join(parent, name), place)) not in placed for name in names):  # noqa: PTH118
            return True
    return False
