"""From an image to a generation: its project is read, refused, and made current if it says anything new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.current import Current
from dom0.agent.foresee import ENDS, Running, refuse
from dom0.agent.pull import Audience
from dom0.agent.source import NOTHING, Candidate, Handed, Own
from dom0.agent.take_over import take_over
from dom0.durable import writing
from dom0.engine.protocol import Engine
from dom0.images import names
from dom0.names import HOST_ROOT
from dom0.plan import labels
from dom0.plan.adoption import carry_over
from dom0.plan.orchestrators import endings

Resolve = Callable[[str, Audience, Handed], Awaitable[Candidate]]
"""Reads the project of the image with that ID ("": of our own) where it is not handed; it says what it pulls."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """`image`: ID of the dom0 image whose project it is, "" for our own; `handed` is of it.

    `force`: every container is made anew. `adopt`: what Docker Compose made for the project is taken over.
    `of_a_person`: refused for what this host does not have; at a boot, everything else is to come up all the same.
    """

    cause: str
    image: str = ""
    handed: Handed = NOTHING
    force: bool = False
    adopt: bool = False
    of_a_person: bool = False


class Proposer:
    """One proposal at a time."""

    def __init__(
        self, engine: Engine, state: Path, *, own: Own, current: Current, resolve: Resolve, audience: Audience
    ) -> None:
        self._engine = engine
        self._state = state
        self._own = own
        self._current = current
        self._resolve = resolve
        self._audience = audience
        self._turn = asyncio.Lock()

    @property
    def is_at_work(self) -> bool:
        return self._turn.locked()

    @property
    def owes_our_own(self) -> bool:
        """A restart goes on with what is; another image is a new proposal, unless it has failed before."""
        generation = self._current.generation
        if generation is None:
            return True
        if self._own.image in ("", generation.dom0_image, generation.agent_image):
            return False
        earlier = next((g for g in self._current.generations.all() if g.dom0_image == self._own.image), None)
        return earlier is None or not earlier.outcome.is_failure

    async def propose(self, asked: Proposal) -> None:
        """Make what it asks for the current generation, if it is not that already. Raises Dom0Error."""
        async with self._turn:
            present = await self._engine.containers(labels=[labels.PROJECT]) if asked.force else ()
            with writing(self._state):
                candidate, before = await self._resolve(asked.image, self._audience, asked.handed), None
                generation = self._current.generation
                desired = carry_over(candidate.desired, generation.desired if generation else None)
                candidate = replace(candidate, desired=desired)
                if asked.adopt and (generation is None or not generation.desired.slots):
                    once_more = replace(NOTHING, logins=asked.handed.logins, images=asked.handed.images)
                    again = partial(self._resolve, asked.image, self._audience, once_more)
                    candidate, before = await take_over(self._engine, candidate, self._state, again)
                root = HOST_ROOT if asked.of_a_person and self._own.sees_host else None
                running = Running(self._current.project, self._current.generation, root=root, state=self._state)
                await refuse(self._engine, candidate.desired, running, candidate.locations)
                if generation is not None and endings(generation.desired, candidate.desired, ()):
                    # who gives an orchestrator another name would miss its data
                    for one in endings(generation.desired, candidate.desired, await self._engine.volumes()):
                        stays = f"; volumes that stay: {', '.join(one.volumes)}" if one.volumes else ""
                        self._audience.say(f"{one.scope} {ENDS}{stays}")
                async with names.taken_up(self._engine, candidate.dom0_image):
                    recreate = tuple(container.id for container in present)
                    self._current.begin(candidate, asked.cause, recreate=recreate, as_it_was=before)
