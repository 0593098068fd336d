"""The time, and waiting for it: tests have a clock of their own (testing/virtual_time)."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """`now` is the time of day and may jump, as the Engine's times do with it; `monotonic` measures what lasts."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    async def wait(self, event: asyncio.Event, timeout: float) -> None: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def wait(self, event: asyncio.Event, timeout: float) -> None:
        """Until `event` is set, `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return
