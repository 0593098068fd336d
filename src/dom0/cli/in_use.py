"""What Docker Compose runs of a project, and from where."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dom0.errors import InUse
from dom0.plan import labels
from dom0.plan.adoption import project_directories

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image


async def place_of(engine: Engine, image: Image, directory: Path | None, *, adopts: bool) -> Path:
    """What relative paths of the image's project mean on this machine. Raises InUse, Damaged."""
    from dom0.agent.in_place import find_place
    from dom0.cli.places import is_here, state_directory
    from dom0.images.project import PLACED

    project = image.labels.get(labels.PROJECT, "")
    if adopts and directory is not None and await _runs_from(engine, project, directory):
        return directory
    try:
        return (is_here() and find_place(state_directory(), project)) or PLACED
    except PermissionError:
        return PLACED


async def _runs_from(engine: Engine, project: str, directory: Path) -> bool:
    """Whether Docker Compose runs it from there; from elsewhere, its relative paths mean something else: InUse."""
    rows = await engine.containers(labels=[f"{labels.COMPOSE_PROJECT}={project}"])
    places = list(project_directories(row for row in rows if labels.PROJECT not in row.labels))
    for place in places:
        if not await asyncio.to_thread(_is_same, place, directory):
            raise InUse(f"{project}: docker compose runs it from {place}", hint=f"dom0 up --adopt {place}")
    return bool(places)


def _is_same(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
