"""Whether a target is up: it is while it accepts TCP connections. The counting is pure; `Probes` connects.

A target counts as up until it has failed `fall` times in a row, and again after it was reached `rise` times.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping

import msgspec

from dom0.ambassador.declaration import Probing
from dom0.forward.table import Target


class TargetHealth(msgspec.Struct, frozen=True):
    up: bool = True
    streak: int = 0  # tries in a row that said otherwise


def judge(health: TargetHealth, probing: Probing, *, accepted: bool) -> TargetHealth:
    if accepted == health.up:
        return TargetHealth(health.up)
    streak = health.streak + 1
    if streak >= (probing.rise if accepted else probing.fall):
        return TargetHealth(accepted)
    return TargetHealth(health.up, streak)


async def accepts(target: Target, timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(target.address, target.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


class Probes:
    """Connects to each watched target at its interval; calls `on_change` when one goes up or down."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._health: dict[str, TargetHealth] = {}
        self._tasks: dict[Target, tuple[Probing, asyncio.Task[None]]] = {}

    @property
    def unhealthy(self) -> frozenset[str]:
        return frozenset(name for name, health in self._health.items() if not health.up)

    def know(self, down: Collection[str]) -> None:
        """They were down before this process started."""
        self._health |= {name: TargetHealth(up=False) for name in down}

    def watch(self, targets: Mapping[Target, Probing], group: asyncio.TaskGroup) -> None:
        """These and no others from now on; probes of those watched already go on."""
        for target, (probing, task) in list(self._tasks.items()):
            if targets.get(target) != probing:
                task.cancel()
                del self._tasks[target]
        for target, probing in targets.items():
            if target not in self._tasks:
                self._tasks[target] = (probing, group.create_task(self._ask(target, probing)))
        watched = {str(target) for target in targets}
        self._health = {name: health for name, health in self._health.items() if name in watched}

    async def _ask(self, target: Target, probing: Probing) -> None:
        name = str(target)
        while True:
            accepted = await accepts(target, probing.timeout)
            before = self._health.get(name, TargetHealth())
            self._health[name] = judge(before, probing, accepted=accepted)
            if self._health[name].up != before.up:
                self._on_change()
            await asyncio.sleep(probing.interval)
