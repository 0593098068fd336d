"""Data that the services of another project have written below the project's directory, which all projects share.

Where the services of this one would write, too, it would be taken for theirs: two databases in turn on one `./data`.
"""

from __future__ import annotations

import itertools
import os
import shlex
from pathlib import Path

from dom0.agent.generations import Generations
from dom0.agent.placement import Placement
from dom0.agent.three_way import FileAction
from dom0.agent.versions import spelled
from dom0.errors import InUse
from dom0.plan.desired import Desired
from dom0.plan.writers import written


def require_no_data_of_others(state: Path, desired: Desired) -> None:
    """Asked are the generations since the project ran last. Raises InUse."""
    place = state / "project"
    ours = _directories(place, desired)
    if not ours:
        return
    placement = Placement(place)
    steps = placement.plan({}, placement.record(None))
    as_placed = {spelled(path) for path, step in steps.items() if step.action is FileAction.REMOVE}
    for generation in Generations(state).all():
        other = generation.desired.project
        if other == desired.project:
            return
        for own, theirs in itertools.product(ours, _directories(place, generation.desired)):
            if not (own.is_relative_to(theirs) or theirs.is_relative_to(own)):
                continue
            inner = max(own, theirs, key=lambda path: len(path.parts))
            files = (os.path.join(parent, name) for parent, _, names in os.walk(inner) for name in names)  # noqa: PTH118
            if any(spelled(os.path.relpath(file, place)) not in as_placed for file in files):
                raise InUse(
                    f"{desired.project}: would write into {inner}, where services of {other} have left data",
                    hint=f"keep it for {other}: mv {shlex.quote(str(inner))} {shlex.quote(f'{inner}-of-{other}')}",
                )


def _directories(place: Path, desired: Desired) -> list[Path]:
    """Below `place`, in which its services write."""
    return sorted({path for slot in desired.slots for path in map(Path, written(slot)) if place in path.parents})
