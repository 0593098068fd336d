"""Which generation the names of images are of: those that moved for one that failed go back to the one before it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dom0.agent.generations import Generation
from dom0.agent.status import Outcome
from dom0.engine.protocol import Engine
from dom0.errors import EngineError
from dom0.images import names
from dom0.names import IMAGE

log = logging.getLogger(__name__)


def names_of(generation: Generation) -> dict[str, str]:
    """As they were when it was the one that a person wanted."""
    return {IMAGE: generation.dom0_image} | {slot.image: slot.image_id for slot in generation.desired.slots}


async def give_back(engine: Engine, known: Iterable[Generation], failed: Generation, target: Generation) -> None:
    """Generations that were replaced before they were good have moved names too."""
    since = [g for g in known if target.number < g.number < failed.number]
    never_good = [g for g in since if g.outcome is Outcome.REPLACED and g.before == target.number]
    try:
        for generation in (*reversed(never_good), failed):
            await names.give_back(engine, generation.dom0_image, names_of(target))
    except EngineError as error:
        log.warning("generation %d: the names of its images stay: %s", failed.number, error.message)


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
