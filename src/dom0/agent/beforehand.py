"""What a command creates for an agent that is not loaded yet: until then a processor has nothing else to do.

It is what that agent would create first, by the same plan and with its mark, so the agent finds its own. Nothing is
started, replaced or removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from dom0.agent.apply import Applier, takes_all_endpoints
from dom0.agent.foresee import Running
from dom0.agent.generations import Generations
from dom0.agent.observe import Observer
from dom0.agent.ownership import Ownership
from dom0.agent.status import Created
from dom0.engine.protocol import Engine
from dom0.errors import EngineError
from dom0.plan.desired import Desired
from dom0.plan.ownership import new_mark
from dom0.plan.planner import make_plan
from dom0.plan.steps import MISSING, CreateContainer, CreateNetwork
from dom0.plan.text import kind_of, name_of, say_step

CREATES = 4  # of containers at once: all starts wait for the networks, and for the agent


async def create_beforehand(
    engine: Engine,
    desired: Desired,
    running: Running,
    told: Callable[[Created, str], None],
    answering: asyncio.Future[bool],
) -> None:
    """Networks, and the containers that wait for nothing else, until the agent is `answering`.

    An agent that has a generation takes it up as soon as it is loaded, without a word of ours; one that was never here
    has no key for its marks, and would not know them for its own. Then nothing is created. What the Engine refuses the
    agent asks for again, and says why. `told` gets what was created, and its service.
    """
    if running.state is None or running.generation is not None or running.seal.older is None or desired.adopted:
        return
    mint = partial(new_mark, running.seal)
    number = Generations(running.state).next_number()
    room = asyncio.Semaphore(CREATES)
    with contextlib.suppress(EngineError):
        all_endpoints = takes_all_endpoints((await engine.info()).api_version)
        applier = Applier(engine, mint=mint, generation=number, all_endpoints=all_endpoints)

        async def create(step: CreateNetwork | CreateContainer) -> None:
            async with contextlib.nullcontext() if isinstance(step, CreateNetwork) else room:
                if not answering.done():
                    with contextlib.suppress(EngineError):
                        await applier.apply(step)
                        service = step.slot.service if isinstance(step, CreateContainer) else ""
                        told(Created(kind=kind_of(type(step)), name=name_of(step), text=say_step(step)), service)

        ownership = Ownership(running.seal, save=lambda _seal: None)
        ownership.take_up(desired.project)
        observer = Observer(engine, ownership)
        await observer.look()
        plan = make_plan(desired, await observer.actual(desired), running.memory, time.time())
        creates = (step for step in plan.steps if isinstance(step, CreateNetwork | CreateContainer))
        await asyncio.gather(*(create(step) for step in creates if step.reason == MISSING))
