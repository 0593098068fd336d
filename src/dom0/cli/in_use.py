"""What Docker Compose runs of a project, and from where."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dom0.cli.client import Agent
from dom0.cli.places import agent_socket, is_here
from dom0.errors import Dom0Error, InUse
from dom0.names import PLACED, state_directory
from dom0.plan import labels

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image


async def place_of(engine: Engine, image: Image, directory: Path | None, *, adopts: bool) -> Path:
    """What relative paths of the image's project mean on this machine.

    Raises InUse where they are meant for another directory than `directory`, the project's; Damaged.
    """
    from dom0.agent.in_place import find_places
    from dom0.agent.store import Forbidden

    project = image.labels.get(labels.PROJECT, "")
    if adopts and directory is not None:
        from dom0.plan.adoption import project_directories

        rows = await engine.containers(labels=[f"{labels.COMPOSE_PROJECT}={project}"])
        runs_from = list(project_directories(row for row in rows if labels.PROJECT not in row.labels))
        for other in runs_from:
            if not _is_same(other, directory):  # relative paths differ there
                raise InUse(
                    f"{project}: docker compose runs it from {other}", hint=f"dom0 up --adopt {shlex.quote(other)}"
                )
        if runs_from:
            return directory
    try:
        place = find_places(state_directory()).get(project) if is_here() else None
    except Forbidden:
        return PLACED  # the agent knows better
    if place and directory is not None and not _is_same(str(place), directory):
        raise InUse(
            f"{project}: its files are in {place} since it was taken over from Docker Compose, and this is {directory}",
            hint=f"dom0 up {shlex.quote(str(place))}\n"
            "has it moved: dom0 down; here docker compose up --detach; then dom0 up --adopt",
        )
    return place or PLACED


async def projects_in_place(engine: Engine, directory: Path, *, adopts: bool) -> Collection[str]:
    """The names of the projects that live in `directory`, or will when what Docker Compose runs is taken over."""
    from dom0.cli.unchanged import taken_over_from

    found = set(taken_over_from(directory))
    if adopts:
        for row in await engine.containers(labels=[labels.COMPOSE_WORKING_DIR]):
            if labels.PROJECT not in row.labels and _is_same(row.labels[labels.COMPOSE_WORKING_DIR], directory):
                found.add(row.labels.get(labels.COMPOSE_PROJECT, ""))
    return found


def running_project() -> str:
    """What the machine is, by the word of an agent that answers at once; else "", and another one is refused later."""
    with contextlib.suppress(Dom0Error, OSError):
        if not is_here() or agent_socket().exists():
            return Agent(patient=False).status().project
    return ""


def _is_same(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
