"""Before a root container of another image starts: whether something else has what its project needs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dom0.agent.in_use import find_others, require_free
from dom0.errors import ProjectError
from dom0.plan import labels

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image


async def require_free_for(engine: Engine, image: Image) -> None:
    """The agent asks the same; but then its container runs already. Raises InUse."""
    others = await find_others(engine, image.labels.get(labels.PROJECT, ""))
    if not any(other.mounts or labels.COMPOSE_PROJECT in other.labels for other in others):
        return

    from dom0.cli.plan import desired_with_images_here
    from dom0.compose.load import load
    from dom0.images.project import PLACED
    from dom0.images.unpack import unpack_project

    with tempfile.TemporaryDirectory(prefix="dom0-project-") as scratch:
        try:
            project = await load(await unpack_project(engine, image.id, Path(scratch)), PLACED, hashed=False)
            desired = await desired_with_images_here(engine, project)
        except ProjectError:
            return  # the agent says so, in the words of the image
    require_free(desired, others)
