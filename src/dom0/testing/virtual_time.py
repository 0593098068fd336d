"""An event loop whose time only passes when nothing else is left to do: `asyncio.sleep(3600)` returns at once.

For tests without I/O: the fake Engine, the planner, the loop. Timers run in their order, so what would race in real
time is decided by the numbers in the test. A task that waits for something outside of the loop (a thread, a process)
finds that its timeout has passed.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_TICK = 1e-5  # seconds
_STUCK = 60.0  # real seconds for a thread to answer when nothing else is left to wait for
EPOCH = 1_800_000_000.0  # what `now` says when the loop starts, in seconds


class _Jump(selectors.SelectSelector):
    """Waits for nothing: tells how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(_STUCK if timeout is None else 0)
        if not ready and timeout is None:
            raise RuntimeError("the test would wait for ever: no task can go on and no timer is set")
        self.passed += 0.0 if ready or timeout is None else max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        self.clock_error = 0.0  # seconds by which the wall clock is ahead: tests set it back and forth
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.passed

    def pass_time(self, seconds: float) -> None:
        self._jump.passed += seconds


class LoopClock:
    """The running loop's time as seconds since the epoch, and the agent's way to wait."""

    def now(self) -> float:
        return now()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait(self, event: asyncio.Event, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return


def now() -> float:
    loop = asyncio.get_running_loop()
    return EPOCH + loop.time() + (loop.clock_error if isinstance(loop, VirtualTimeLoop) else 0.0)


def set_clock(by: float) -> None:
    """Let the wall clock jump, as when the time of day comes from the network after a boot with a wrong one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.clock_error += by


def tick() -> float:
    """As `now`, and never the same twice in virtual time."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        loop.pass_time(_TICK)
    return now()


def run(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
