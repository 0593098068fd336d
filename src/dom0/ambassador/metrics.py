"""Metrics for Prometheus, where the settings ask for them. They are read at each request, not counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from dom0.ambassador.declaration import MetricsAddress
from dom0.ambassador.forwarder import Forwarder
from dom0.ambassador.messages import State
from dom0.ambassador.report import Reporter, connections
from dom0.errors import Dom0Error
from dom0.forward.dataplane import Flow

LONGEST_QUESTION = 8192  # bytes
PATIENCE = 10.0  # seconds
_OF_FLOWS = ("listener", "target", "generation")


@contextlib.asynccontextmanager
async def metrics(forwarder: Forwarder, reporter: Reporter, at: MetricsAddress) -> AsyncIterator[None]:
    """Answer at `at` until the block ends. Raises Dom0Error: the port is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(head, forwarder, reporter))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, at.address or None, at.port, limit=LONGEST_QUESTION)
    except OSError as error:
        raise Dom0Error(f"metrics: {at.address}:{at.port}: {error.strerror or error}") from error
    try:
        yield
    finally:
        server.close()


async def _answer(head: bytes, forwarder: Forwarder, reporter: Reporter) -> bytes:
    words = head.split(b"\r\n", 1)[0].split()
    body, kind = b"GET /metrics\n", "text/plain"
    if len(words) != 3 or words[0] != b"GET":
        status = "405 Method Not Allowed"
    elif words[1].split(b"?")[0] != b"/metrics":
        status = "404 Not Found"
    else:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collector(forwarder, reporter.state(), await forwarder.plane.flows()))
        status, body, kind = "200 OK", generate_latest(registry), CONTENT_TYPE_LATEST
    fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + body


class Collector:
    def __init__(self, forwarder: Forwarder, state: State, flows: list[Flow]) -> None:
        self._forwarder = forwarder
        self._state = state
        self._flows = flows

    def collect(self) -> Iterator[Any]:
        yield from self._of_flows()
        yield from self._of_targets()
        rewires = CounterMetricFamily("dom0_ambassador_rewires", "Rewires since the state began.", labels=["cause"])
        for cause, count in sorted(self._forwarder.stored.causes.items()):
            rewires.add_metric([cause], count)
        yield rewires
        problems = GaugeMetricFamily("dom0_ambassador_problems", "Problems.", labels=["code", "severity"])
        for (code, severity), count in Counter((it.code, it.severity) for it in self._state.problems).items():
            problems.add_metric([code, severity], count)
        yield problems
        if found := connections():
            yield GaugeMetricFamily("dom0_ambassador_conntrack_entries", "Connections in the kernel.", value=found[0])
            yield GaugeMetricFamily("dom0_ambassador_conntrack_max", "Connections it can follow.", value=found[1])

    def _of_flows(self) -> Iterator[Any]:
        count: Counter[tuple[str, str, str]] = Counter()
        sent: Counter[tuple[str, str, str]] = Counter()
        received: Counter[tuple[str, str, str]] = Counter()
        for flow in self._flows:
            key = (str(flow.came_by), str(flow.target), str(flow.generation))
            count[key] += 1
            sent[key] += flow.sent
            received[key] += flow.received
        for name, text, values in (
            ("dom0_ambassador_connections", "Connections that are there.", count),
            ("dom0_ambassador_sent_bytes", "Bytes to the target, of connections that are there.", sent),
            ("dom0_ambassador_received_bytes", "Bytes from the target, of connections that are there.", received),
        ):
            family = GaugeMetricFamily(name, text, labels=_OF_FLOWS)
            for key, value in sorted(values.items()):
                family.add_metric(list(key), value)
            yield family

    def _of_targets(self) -> Iterator[Any]:
        up = GaugeMetricFamily("dom0_ambassador_target_up", "1: gets connections.", labels=["listener", "target"])
        generation = GaugeMetricFamily("dom0_ambassador_generation", "Of new connections.", labels=["listener"])
        for it in self._state.listeners:
            generation.add_metric([it.listener], it.generation)
            for target in sorted({*it.targets, *it.unhealthy}):
                up.add_metric([it.listener, target], 0 if target in it.unhealthy else 1)
        yield up
        yield generation
