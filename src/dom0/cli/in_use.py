"""Before a root container of another image starts: whether something else has what its project needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0 import temporary
from dom0.agent.in_use import find_others, require_free
from dom0.cli.places import state_directory
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
    from dom0.images import private
    from dom0.images.project import PLACED
    from dom0.images.unpack import unpack_project

    with temporary.directory("project") as scratch:
        try:
            etc = await unpack_project(engine, image.id, scratch)
            brought = private.brought_for(state_directory(), image.id)
            private.lay(private.of_image(image.labels), etc, [brought], image.labels.get(labels.PROJECT, ""))
            project = await load(etc, PLACED, hashed=False)
            desired = await desired_with_images_here(engine, project)
        except ProjectError:
            return  # the agent says so, in the words of the image
    require_free(desired, others)
