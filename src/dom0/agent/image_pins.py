"""Tags that protect the images of good generations from `docker image prune`: `dom0-kept:<start of the ID>`."""

from __future__ import annotations

from collections.abc import Iterable

from dom0.agent.generations import Generation
from dom0.agent.status import Outcome
from dom0.engine.protocol import Engine
from dom0.errors import NotFound

REPOSITORY = "dom0-kept"
ID_DIGITS = 12


async def keep_images(engine: Engine, generations: Iterable[Generation]) -> None:
    """Tag what good generations need, untag what only forgotten ones needed. Raises EngineError."""
    good = [g for g in generations if g.outcome in (Outcome.GOOD, Outcome.TRIAL)]
    needed = {image_id for g in good for image_id in (g.dom0_image, *(slot.image_id for slot in g.desired.slots))}
    wanted = {f"{REPOSITORY}:{image_id.removeprefix('sha256:')[:ID_DIGITS]}": image_id for image_id in needed - {""}}
    present = {tag for image in await engine.images() for tag in image.tags if tag.startswith(f"{REPOSITORY}:")}
    for tag in wanted.keys() - present:
        try:
            await engine.tag_image(wanted[tag], tag)
        except NotFound:
            continue  # somebody removed it; going back to that generation will say so
    for tag in present - wanted.keys():
        await engine.remove_image(tag)
