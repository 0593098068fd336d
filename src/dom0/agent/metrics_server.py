"""Tells the machine's numbers where `x-dom0.metrics` asks for it, and nothing where it does not.

They are made at each request: nothing is counted or kept for them but how many events of each kind the journal has had.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from dom0.agent.progress import Changes
from dom0.health import Problem, Severity
from dom0.http import server
from dom0.http.server import Request, Response
from dom0.http.web_pages import LOOPBACK, check_request
from dom0.plan.desired import Metrics

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until one that cannot be listened at is tried again
MOST = 16  # connections at once
UNREAD = 30.0  # seconds
_HINTS = {errno.EADDRINUSE: "who has it: ss -ltnp; or choose another port as x-dom0.metrics.listen"}


class MetricsServer:
    """`changed` tells of another generation, and is told when the problem changes."""

    def __init__(
        self, changed: Changes, wanted: Callable[[], Metrics | None], render: Callable[[], Awaitable[bytes]]
    ) -> None:
        self._changed = changed
        self._wanted = wanted
        self._render = render
        self.problems: tuple[Problem, ...] = ()

    async def run(self) -> None:
        while True:
            await self._changed.until(lambda: self._wanted() is not None)
            metrics = self._wanted()
            assert metrics is not None
            serving = asyncio.create_task(self._keep_serving(metrics))
            try:
                await self._changed.until(lambda metrics=metrics: self._wanted() != metrics)  # type: ignore[misc]
            finally:
                serving.cancel()
                await asyncio.wait([serving])
                self._tell(())

    async def _keep_serving(self, metrics: Metrics) -> None:
        """Until it is cancelled: an address may come later, and the agent before us may have it for a moment yet."""
        from dom0.registry.listening import is_among, listen, read_address, read_networks  # few machines need it

        host, port = read_address(metrics.listen)
        networks = read_networks(metrics.allow)
        pause = FIRST_PAUSE
        while True:
            try:
                with listen(host, port) as listening:
                    self._tell(())
                    is_private = ip_address(host).is_loopback
                    handler = self._answer_loopback if is_private else self._answer
                    admits = None if not networks else lambda address: is_among(address, networks)
                    async with server.serve(handler, listening, most=MOST, admits=admits, unread=UNREAD):
                        await asyncio.Event().wait()
            except OSError as error:
                number = error.errno or 0
                title = f"the machine's numbers are not told at {metrics.listen}: {os.strerror(number)}"
                hint = _HINTS.get(number, "this machine's addresses: ip -brief address; it is tried again")
                since = self.problems[0].since if self.problems else time.time()
                problem = Problem(
                    code="metrics-unserved",
                    subject="metrics",
                    title=title,
                    severity=Severity.WARNING,
                    hint=hint,
                    since=since,
                )
                self._tell((problem,))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        if problems != self.problems:
            self.problems = problems
            self._changed.tell()

    async def _answer_loopback(self, request: Request) -> Response:
        """By a name that leads there, so that no page in a browser of this machine reads along."""
        check_request(request, LOOPBACK)
        return await self._answer(request)

    async def _answer(self, request: Request) -> Response:
        return await server.route({"GET /metrics": self._metrics})(request)

    async def _metrics(self, _request: Request) -> Response:
        return Response(await self._render(), content_type=CONTENT_TYPE)
