"""What each node is told to run, as the server keeps it in memory: of what is in the farm's directory, and what nodes
say. Which revision each of them is to run is decided by one pure function, for all of them at once (`rollout`).

Commands and people change the directory beside the server, which looks whether they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from dom0.errors import Dom0Error
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import SEEN_EACH, Node, Nodes, NodeState
from dom0.farms.revisions import Order, Report, Revision

LOOK_AGAIN = 0.5  # seconds between looks at the directory
WAIT = 50.0  # seconds that an answer waits; connections in which nothing comes for a minute are closed

log = logging.getLogger(__name__)


class Orders:
    def __init__(self, farm: FarmDirectory) -> None:
        self._farm = farm
        self._name = farm.settings().name
        self._nodes: dict[str, Node] = {}
        self._reports = farm.reports()
        self._heard: dict[str, tuple[str, float]] = {}  # by key: address and time of the last word
        self._orders: dict[str, Order] = {}
        self._blobs: dict[str, dict[str, int]] = {}  # by key: what the node may have
        self._seen: object = None  # of the directory
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    async def keep(self) -> None:
        """Look until it is cancelled."""
        while True:
            try:
                await self.look()
                await asyncio.to_thread(self._note_words)
            except Dom0Error as error:
                log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            await asyncio.sleep(LOOK_AGAIN)

    async def hear(self, key: str, report: Report, address: str) -> None:
        """A word of a node; of others it is passed over. Raises Dom0Error."""
        await self.look()
        if key not in self._nodes:
            return
        now = time.time()
        self._heard[key] = (address, now)
        before = self._reports.get(key, Report())
        said = replace(report, since=before.since)
        if said != before:
            said = replace(said, since=now)
            await asyncio.to_thread(self._farm.put_report, key, said)
            self._reports[key] = said
            await self.look(anew=True)

    async def wait(self, key: str, told: str, is_gone: Callable[[], bool]) -> Order | None:
        """What the node is to run, as soon as it is not what it was `told`. None: it is no node."""
        until = time.monotonic() + WAIT
        while (order := self._orders.get(key)) is not None and order.digest == told and not is_gone():
            if (left := until - time.monotonic()) <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 5.0)):
                    await self._changed.wait()
        return order

    def find_blob(self, key: str, digest: str) -> int | None:
        """Its size, if the node may have it."""
        return self._blobs.get(key, {}).get(digest)

    async def look(self, *, anew: bool = False) -> None:
        """Whether the directory has changed, and decide again if so, or `anew`. Raises Dom0Error."""
        async with self._turn:
            seen = self._farm.stamp()
            if seen == self._seen and not anew:
                return
            nodes, current = await asyncio.to_thread(lambda: (self._farm.nodes(), self._farm.current()))
            self._seen = seen
            self._decide(nodes, current)
        self._changed.set()
        self._changed = asyncio.Event()

    def _decide(self, nodes: Nodes, current: Revision | None) -> None:
        enrolled = {node.key: node for node in nodes.nodes if node.state is NodeState.ENROLLED}
        self._orders, self._blobs, self._nodes = {}, {}, enrolled
        for key, node in enrolled.items():
            content = current.roles.get(node.role) if current else None
            number = current.number if current and content else 0
            self._orders[key] = Order(
                farm=self._name, name=node.name, role=node.role, revision=number, fetch=content, run=content
            )
            self._blobs[key] = content.blobs if content else {}
        for key in self._reports.keys() - enrolled:
            del self._reports[key]
            self._farm.put_report(key, None)

    def _note_words(self) -> None:
        """When nodes were heard of last, of all of them in one write."""

        def note(nodes: Nodes) -> tuple[Nodes, None]:
            for key, (address, last) in self._heard.items():
                node = next((node for node in nodes.nodes if node.key == key), None)
                if node is not None:
                    nodes = nodes.put(replace(node, address=address, last=last))
            return nodes, None

        known = ((self._nodes.get(key), last) for key, (_, last) in self._heard.items())
        if any(node and not 0 <= last - node.last < SEEN_EACH for node, last in known):
            self._farm.change(note)
