"""The active health gate: run a starting container's health command at once, not when the Engine's interval comes.

The Engine waits a whole interval (30 s by default, 5 s with start_interval) before its first probe, and dependents
wait with it. The gate asks as soon as the container runs; when it passes, the Engine's own checks take over.
"""

from __future__ import annotations

import asyncio

from dom0.engine.protocol import Engine
from dom0.errors import Conflict, NotFound
from dom0.plan.desired import HealthTest

FIRST_PAUSE = 0.02  # seconds between probes, growing
LONGEST_PAUSE = 1.0


async def pass_gate(engine: Engine, container_id: str, test: HealthTest) -> bool:
    """Probe until it succeeds (True) or the container stops or goes (False). Raises EngineUnreachable."""
    pause = FIRST_PAUSE
    while True:
        try:
            result = await engine.exec(container_id, test.argv, timeout=test.timeout)
        except (NotFound, Conflict):
            return False
        except TimeoutError:
            result = None
        if result is not None and result.exit_code == 0:
            return True
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)
