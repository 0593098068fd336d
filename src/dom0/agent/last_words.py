"""What the services of a generation that failed said last. Their containers are gone once the machine is back."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from dom0.engine.protocol import Engine
from dom0.errors import EngineError
from dom0.plan.phase import Phase
from dom0.plan.planner import WELL, Plan

log = logging.getLogger(__name__)

MOST_LINES = 5  # of one service
MOST_SERVICES = 5
LONGEST_LINE = 500  # characters
PATIENCE = 3.0  # seconds in all: going back must not wait for an Engine that is slow


class Words(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    line: str


async def last_words(engine: Engine, plan: Plan) -> tuple[Words, ...]:
    """Of the services that are not well, what could be had of it in time; never raises for the Engine's sake."""
    words: list[Words] = []
    try:
        async with asyncio.timeout(PATIENCE):
            for service, container_id in _not_well(plan)[:MOST_SERVICES]:
                text = await engine.logs(container_id, tail=MOST_LINES)
                words += [Words(service=service, line=line[:LONGEST_LINE]) for line in text.splitlines()[-MOST_LINES:]]
    except (EngineError, TimeoutError) as error:
        log.info("what a service said last cannot be read: %s", error or "took too long")
    return tuple(words)


def _not_well(plan: Plan) -> list[tuple[str, str]]:
    """Service and container ID; who waits for another has nothing to say."""
    return [
        (slot.slot.service, slot.container.id)
        for slot in plan.slots
        if slot.container is not None and slot.phase not in WELL and slot.phase is not Phase.WAITING
    ]
