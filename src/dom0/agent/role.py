"""Brings up the role that the farm gives this machine, as a person's `dom0 up` would: a generation that goes back by
itself. Knows nothing of the farm's server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from dom0.agent import handover
from dom0.agent.events import actor
from dom0.agent.machine import Machine
from dom0.agent.source import Own
from dom0.agent.status import Outcome, Progress, UpRequest
from dom0.engine.protocol import Engine, find_container
from dom0.errors import Busy
from dom0.images import names
from dom0.names import HANDOVER, IMAGE
from dom0.plan.labels import BASE

FARM = "farm"  # the actor, in the journal


class RoleRunner:
    def __init__(self, engine: Engine, machine: Machine, own: Own, hand_over: Callable[[str], Awaitable[None]]) -> None:
        self._engine = engine
        self._machine = machine
        self._own = own
        self._hand_over = hand_over

    @property
    def generation(self) -> int:
        """Number of the last one."""
        return max((one.number for one in self._machine.history()), default=0)

    @property
    def is_well(self) -> bool:
        """Whether all runs as it should, and nothing was given up."""
        plan, _ = self._machine.seen
        return plan is not None and plan.well and self._machine.status().converged

    async def run(self, image: str, images: Mapping[str, str], *, after: int) -> str:
        """Return how the dom0 image with that ID has ended: "" if its generation is good, else why it is not.

        `images`: IDs of what its services refer to. `after`: number of the last generation when this was begun: it may
        have ended since. Raises Busy, Dom0Error.
        """
        if said := self._find_failure(image, after):
            return said
        actor.set(FARM)
        found = await self._engine.image(image)
        await names.mark(self._engine, found, IMAGE)
        if image != self._own.image and found.labels.get(BASE, "") != self._own.built_on:
            helper = await find_container(self._engine, HANDOVER)
            failure = await handover.last_failure(self._engine)
            if helper is not None and helper.image_id == image and failure is not None:
                await self._engine.remove_container(helper.id, force=True)  # the next attempt is another one
                return failure.title
            # Its own agent takes it up, in our place, by what its references name.
            await names.give(self._engine, {ref: id_ for ref, id_ in images.items() if "@" not in ref})
            async with names.taken_up_later(self._engine, image):
                await self._hand_over(image)
            raise Busy("dom0: gives way to the dom0 image of the role")
        last = Progress()
        async for progress in self._machine.up(UpRequest(dom0_image=image, images=dict(images))):
            last = progress
        if last.outcome is None:
            raise Busy("dom0: is shutting down")
        if last.outcome is Outcome.REPLACED:
            raise Busy("dom0: another change came between")
        if not last.outcome.is_failure:
            return ""
        return next((problem.title for problem in last.problems), "") or self._find_failure(image, after) or "it failed"

    async def find_end(self, image: str, *, after: int) -> str:
        """Return how what was begun has ended, as `run` does, as soon as it has; nothing is begun."""
        await self._machine.changed.until(lambda: not self._machine.is_changing)
        if said := self._find_failure(image, after):
            return said
        made = (one for one in self._machine.history() if one.dom0_image == image and one.number > after)
        return "" if any(one.outcome is Outcome.GOOD for one in made) else "it was called off before it was good"

    def _find_failure(self, image: str, after: int) -> str:
        """Why the last generation of that image failed, "" if it did not, or is older."""
        found = next((one for one in self._machine.history() if one.dom0_image == image and one.number > after), None)
        return (found.reason or "it failed") if found and found.outcome.is_failure else ""
