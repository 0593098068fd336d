"""Tags that keep the images of generations, and what becomes of those that moved.

Those that moved for a generation that failed go back to the one before it. A tag of its own, `dom0-kept:<start of the
ID>`, protects each image of a good generation from `docker image prune`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from dom0.agent.generations import Generation
from dom0.agent.status import Outcome
from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error, EngineError, NotFound
from dom0.images import names
from dom0.names import IMAGE, KEPT_IMAGES, short_id

log = logging.getLogger(__name__)


def names_of(generation: Generation) -> dict[str, str]:
    """As they were when it was the one that a person wanted."""
    return {IMAGE: generation.dom0_image} | {slot.image: slot.image_id for slot in generation.desired.slots}


async def give_back(engine: Engine, known: Iterable[Generation], failed: Generation, target: Generation) -> None:
    """Generations that were replaced before they were good have moved names too."""
    try:
        since = [g for g in known if target.number < g.number < failed.number]
        never_good = [g for g in since if g.outcome is Outcome.REPLACED and g.before == target.number]
        for generation in (*reversed(never_good), failed):
            await names.give_back(engine, generation.dom0_image, names_of(target))
    except (Dom0Error, OSError) as error:
        log.warning("generation %d: the names of its images stay: %s", failed.number, error)


async def put_right(engine: Engine, generation: Generation | None, own_image: str) -> None:
    """An agent may have been killed between moving the names of an image and writing its generation, or right after."""
    if generation is None or generation.outcome.is_failure:
        return
    try:
        async with names.taken_up(engine, generation.dom0_image):
            pass
        image_id = await names.not_taken_up(engine)
        if image_id not in ("", own_image):
            await names.give_back(engine, image_id, names_of(generation))
    except EngineError as error:
        log.warning("names of images may be of what is not taken up: %s", error.message)


async def keep(engine: Engine, known: Iterable[Generation]) -> None:
    """Tag what good generations need, untag what only forgotten ones needed."""
    try:
        good = [g for g in known if g.outcome in (Outcome.GOOD, Outcome.TRIAL)]
        needed = {image_id for g in good for image_id in (g.dom0_image, *(slot.image_id for slot in g.desired.slots))}
        wanted = {f"{KEPT_IMAGES}:{short_id(image_id)}": image_id for image_id in needed - {""}}
        present = {
            tag: row.id for row in await engine.images() for tag in row.tags if tag.startswith(f"{KEPT_IMAGES}:")
        }
        for tag in (tag for tag, image_id in wanted.items() if present.get(tag) != image_id):  # a load may move one
            with contextlib.suppress(NotFound):  # it was removed; going back to that generation will say so
                await engine.tag_image(wanted[tag], tag)
        for tag in present.keys() - wanted.keys():
            await engine.remove_image(tag)
    except (Dom0Error, OSError) as error:  # OSError: no descriptor is left; the next good generation does it
        log.warning("images of good generations are not protected: %s", error)
