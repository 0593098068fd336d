"""The active health gate: run a starting container's health command at once, not when the Engine's interval comes.

The Engine waits a whole interval (30 s by default, 5 s with start_interval) before its first probe, and dependents
wait with it. The gate asks as soon as the container runs; when it passes, the Engine's own checks take over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from dom0.engine.protocol import Engine
from dom0.engine.values import Container, State
from dom0.errors import Conflict, EngineError, EngineUnreachable, NotFound
from dom0.plan.container_plan import SlotPlan
from dom0.plan.desired import HealthTest
from dom0.plan.phase import Phase

FIRST_PAUSE = 0.02  # seconds between probes, growing
LONGEST_PAUSE = 1.0

Start = tuple[str, float]
"""Container ID and when it was started: what one gate is about."""


class Gates:
    """At most one gate for each start of a container; one that no plan waits for any more is closed.

    `tell` is called at the end of each with the container and whether it passed.
    """

    def __init__(self, engine: Engine, tell: Callable[[Container, bool], None]) -> None:
        self._engine = engine
        self._tell = tell
        self._open: dict[Start, asyncio.Task[None]] = {}
        self._over: set[Start] = set()  # passed, or the Engine's own checks have to do

    def watch(self, plans: Iterable[SlotPlan], tasks: asyncio.TaskGroup) -> None:
        """Open those that are missing for `plans`, close those that are for something else."""
        starting = {
            (container.id, container.started): (container, test)
            for plan in plans
            if plan.phase is Phase.STARTING and plan.slot.health_gate
            if (container := plan.container) is not None and container.state is State.RUNNING
            if (test := plan.slot.health) is not None
        }
        for start, task in self._open.items():
            if start not in starting:
                task.cancel()
        self._over &= starting.keys()
        for start, (container, test) in starting.items():
            if start not in self._open and start not in self._over:
                self._open[start] = tasks.create_task(self._run(container, test))

    def close(self) -> None:
        for task in self._open.values():
            task.cancel()

    async def _run(self, container: Container, test: HealthTest) -> None:
        start = (container.id, container.started)
        passed = False
        try:
            passed = await pass_gate(self._engine, container.id, test)
            self._over.add(start)
        except EngineUnreachable:
            await asyncio.sleep(LONGEST_PAUSE)  # before another one is opened
        finally:
            del self._open[start]
        self._tell(container, passed)


async def pass_gate(engine: Engine, container_id: str, test: HealthTest) -> bool:
    """Probe until it succeeds (True) or the container stops or goes (False). Raises EngineUnreachable."""
    pause = FIRST_PAUSE
    while True:
        try:
            result = await engine.exec(container_id, test.argv, timeout=test.timeout)
            if result.exit_code == 0:
                return True
        except (NotFound, Conflict):
            return False
        except EngineUnreachable:
            raise
        except (TimeoutError, EngineError):
            pass  # no answer is no success; the Engine may lack a process or memory for it just now
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
