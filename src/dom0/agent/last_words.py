"""What the services of a generation that failed said last. Their containers are gone once the machine is back."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from dom0.engine.protocol import Engine
from dom0.engine.values import Container, Health
from dom0.errors import EngineError
from dom0.plan.phase import Phase
from dom0.plan.planner import WELL, Plan

log = logging.getLogger(__name__)

FIRST_LINES, LAST_LINES = 10, 20  # of one service's errors: what went wrong is often at the beginning
OUTPUT_LINES = 5  # of one that printed no error
MOST_READ = 1000  # lines
MOST_SERVICES = 5
LONGEST_LINE = 500  # characters
PATIENCE = 3.0  # seconds in all: going back must not wait for an Engine that is slow
EARLY = 0.5  # seconds: the Engine notes a start after the process has begun to print


class Words(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    line: str


async def last_words(engine: Engine, plan: Plan) -> tuple[Words, ...]:
    """Of the services that are not well, what could be had of it in time; never raises for the Engine's sake."""
    not_well = [
        (slot.slot.service, slot.container)
        for slot in plan.slots
        if slot.container is not None and slot.phase not in WELL and slot.phase is not Phase.WAITING
    ]  # who waits for another has nothing to say
    words: list[Words] = []
    try:
        async with asyncio.timeout(PATIENCE):
            for service, container in not_well[:MOST_SERVICES]:
                lines = await _said(engine, container)
                probed = container.health_output.strip().splitlines() if container.health is Health.UNHEALTHY else []
                if len(probed) > 1:  # the problem's title has the end of it
                    lines += [f"health check: {line}" for line in probed[-LAST_LINES:]]
                words += [Words(service=service, line=line[:LONGEST_LINE]) for line in lines]
    except TimeoutError:
        log.info("what the services said last cannot be read: took too long")
    return tuple(words)


async def _said(engine: Engine, container: Container) -> list[str]:
    """The errors of its last start, or of the ones before where it has just been started again; else its output."""
    try:
        for since in (container.started - EARLY, 0.0):
            text = await engine.logs(container.id, tail=MOST_READ, since=max(since, 0.0), errors_only=True)
            if lines := text.splitlines():
                left_out = len(lines) - FIRST_LINES - LAST_LINES
                if left_out <= 1:
                    return lines
                return [*lines[:FIRST_LINES], f"... {left_out} lines ...", *lines[-LAST_LINES:]]
        return (await engine.logs(container.id, tail=OUTPUT_LINES)).splitlines()[-OUTPUT_LINES:]
    except EngineError as error:  # a log driver that gives nothing back
        log.info("what %s said last cannot be read: %s", container.name, error.message)
        return []
