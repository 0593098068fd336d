"""How a command waits while one root container takes the place of another.

No agent answers between the end of the old one and the start of the new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dom0.agent.status import Status
from dom0.cli.client import SUCCESSION_WITHIN, Agent, AgentUnreachable
from dom0.cli.report import Report, watching
from dom0.errors import Busy, RolledBack
from dom0.names import short_id

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine

PAUSE = 0.1  # seconds between looks at it
UNDO = "go back when it has ended: dom0 rollback"  # its generation is good, so there is nothing to abort


async def let_end(engine: Engine, report: Callable[[str], None]) -> None:
    """Wait for the end of a change of the dom0 image that is under way; finish or undo one that was cut off.

    Raises Dom0Error if it cannot be ended, Interrupted.
    """
    from dom0.agent import handover

    while True:
        if await handover.is_at_work(engine):
            report("dom0: waiting until the change of its image, which is under way, has ended")
            with watching("the change of the dom0 image", end=UNDO):
                await handover.follow_helper(engine)
        try:
            await handover.recover(engine, report)
        except Busy:
            continue
        return


def is_guest() -> bool:
    """Whether the machine is in a scope: its owner decides which image its root container is of."""
    try:
        return Agent(patient=False).status().is_guest
    except AgentUnreachable:
        return False


async def await_succession(engine: Engine, report: Report) -> None:
    """Wait until the dom0 image of a good generation has taken over. Raises RolledBack."""
    from asyncio import sleep  # the caller has loaded it

    from dom0.agent.handover import follow_helper

    report.aside("dom0: its new image takes the place of the running one")
    deadline = time.monotonic() + SUCCESSION_WITHIN
    with watching("the change of the dom0 image", end=UNDO):
        while time.monotonic() < deadline:
            await follow_helper(engine)
            if status := _in_its_place():
                report.aside(f"dom0: runs from its new image {short_id(status.dom0_image)}")
                return
            await sleep(PAUSE)
    hint = "what happened: docker logs dom0-handover; the services are as they should be: dom0 status"
    raise RolledBack("dom0: the new dom0 image did not take over", hint=hint)


def await_announced_succession(report: Report) -> None:
    """The same with an Engine of its own, where there is something to wait for."""
    if _in_its_place():
        return
    from dom0.cli.engine_client import on_engine

    on_engine(lambda engine: await_succession(engine, report))


def _in_its_place() -> Status | None:
    """Its status, once it answers there. Raises RolledBack if it has been there and the one before it is back."""
    try:
        status = Agent(patient=False).status()
    except AgentUnreachable:
        return None
    if status.is_guest or status.generation is None or status.generation.dom0_image in ("", status.dom0_image):
        return status
    failure = next((problem for problem in status.problems if problem.code == "handover-failed"), None)
    if failure is not None:
        raise RolledBack(failure.title, hint=failure.hint)
    return None
