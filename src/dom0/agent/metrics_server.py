"""Tells the machine's numbers where `x-dom0.metrics` asks for it, and nothing where it does not.

They are made at each request: nothing is counted or kept for them but how many events of each kind the journal has had.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from dom0.agent.listener import Listener
from dom0.agent.progress import Changes
from dom0.http import server
from dom0.http.server import Request, Response
from dom0.http.web_pages import LOOPBACK, check_request
from dom0.plan.desired import Metrics

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MOST = 16  # connections at once
UNREAD = 30.0  # seconds


class MetricsServer(Listener[Metrics]):
    key = subject = "metrics"
    code = "metrics-unserved"
    failed = "the machine's numbers are not told"

    def __init__(
        self, changed: Changes, wanted: Callable[[], Metrics | None], render: Callable[[], Awaitable[bytes]]
    ) -> None:
        super().__init__(changed, wanted)
        self._render = render

    async def serve(self, asked: Metrics, listening: socket.socket) -> None:
        from dom0.registry.listening import is_among, read_address, read_networks  # few machines need it

        self.tell(())
        networks = read_networks(asked.allow)
        is_private = ip_address(read_address(asked.listen)[0]).is_loopback
        handler = self._answer_loopback if is_private else self._answer
        admits = None if not networks else lambda address: is_among(address, networks)
        async with server.serve(handler, listening, most=MOST, admits=admits, unread=UNREAD):
            await asyncio.Event().wait()

    async def _answer_loopback(self, request: Request) -> Response:
        """By a name that leads there, so that no page in a browser of this machine reads along."""
        check_request(request, LOOPBACK)
        return await self._answer(request)

    async def _answer(self, request: Request) -> Response:
        return await server.route({"GET /metrics": self._metrics})(request)

    async def _metrics(self, _request: Request) -> Response:
        return Response(await self._render(), content_type=CONTENT_TYPE)
