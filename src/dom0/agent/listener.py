"""Serves at an address as long as the generation asks for it, and says where it cannot."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from dom0.agent.progress import Changes
from dom0.errors import Dom0Error
from dom0.health import Problem, Severity

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until one that cannot be listened at is tried again


class ListenSettings(Protocol):
    @property
    def listen(self) -> str:
        """`ADDRESS:PORT`"""


P = TypeVar("P", bound=ListenSettings)


class Listener(Generic[P]):
    """`changed` tells of another generation, and is told when the problem changes. `key`: the one of x-dom0 that asks
    for it; of the problem `subject`, `code`, `severity`, and what a person is told (`failed`) before the address.
    """

    key: str
    subject: str
    code: str
    severity = Severity.WARNING
    failed: str

    def __init__(self, changed: Changes, wanted: Callable[[], P | None]) -> None:
        self._changed = changed
        self._wanted = wanted
        self.problems: tuple[Problem, ...] = ()

    @abstractmethod
    async def serve(self, asked: P, listening: socket.socket) -> None:
        """Until it is cancelled. Raises OSError, Dom0Error."""

    async def run(self) -> None:
        while True:
            await self._changed.until(lambda: self._wanted() is not None)
            asked = self._wanted()
            assert asked is not None
            serving = asyncio.create_task(self._keep_serving(asked))
            try:
                await self._changed.until(partial(lambda before: self._wanted() != before, asked))
            finally:
                serving.cancel()
                await asyncio.wait([serving])
                self.tell(())

    async def _keep_serving(self, asked: P) -> None:
        """Until it is cancelled: an address may come later, and the agent before us may have it for a moment yet."""
        from dom0.registry.listening import listen, read_address  # few machines need it

        pause = FIRST_PAUSE
        while True:
            try:
                with listen(*read_address(asked.listen)) as listening:
                    await self.serve(asked, listening)
            except (OSError, Dom0Error) as error:
                self.note(asked.listen, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def note(self, where: str, error: OSError | Dom0Error) -> None:
        if isinstance(error, Dom0Error):
            what, hint = error.message, error.hint
        else:
            number = error.errno or 0
            what, hint = os.strerror(number), "this machine's addresses: ip -brief address; it is tried again"
            if number == errno.EADDRINUSE:
                hint = f"who has it: ss -ltnp; or choose another port as x-dom0.{self.key}.listen"
        problem = Problem(
            code=self.code,
            subject=self.subject,
            title=f"{self.failed} at {where}: {what}",
            severity=self.severity,
            hint=hint,
            since=self.problems[0].since if self.problems else time.time(),
        )
        self.tell((problem,))

    def tell(self, problems: tuple[Problem, ...]) -> None:
        if problems != self.problems:
            self.problems = problems
            self._changed.tell()


async def connected(listening: socket.socket) -> None:
    """Until somebody has connected."""
    loop, is_ready = asyncio.get_running_loop(), asyncio.Event()
    listening.setblocking(False)
    loop.add_reader(listening, is_ready.set)
    try:
        await is_ready.wait()
    finally:
        loop.remove_reader(listening)
