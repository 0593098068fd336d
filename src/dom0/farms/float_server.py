"""What the farm's server answers nodes about its Swarm: POST /v1/float {report} -> FloatOrder. It keeps their reports,
and decides for all of them whenever one comes (`float_swarm`).

Join tokens are kept in memory only, and given to nodes that are to join.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from dom0.errors import Dom0Error
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_swarm import IDLE, NOTED_EACH, Decision, FloatNode, FloatOrder, FloatReport, FloatState, decide
from dom0.farms.nodes import Node, NodeState
from dom0.farms.revisions import Floating
from dom0.farms.settings import FarmSettings
from dom0.http.server import HttpError, Request, Response, refusal

MOST_REPORT = 4 << 20  # bytes; of the one that writes: all that the farm has in the Swarm

log = logging.getLogger(__name__)


class FloatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`report`: None until the node has been told that the farm has a Swarm."""

    report: FloatReport | None = None


class FloatServer:
    def __init__(self, farm: FarmDirectory) -> None:
        """Raises Dom0Error."""
        self._farm = farm
        self._settings = farm.settings()
        self._reports = farm.float_reports()
        self._seen: tuple[object, ...] = ()  # of the directory
        self._nodes: dict[str, Node] = {}
        self._floating: Floating | None = None
        self._drained: tuple[str, ...] = ()
        self._writer = ""
        self._deciding = asyncio.Lock()

    async def ask(self, key: str, request: Request) -> Response:
        """Raises HttpError."""
        try:
            async with self._deciding:
                await asyncio.to_thread(self._look)
            if key not in self._nodes:  # nothing of it is read
                raise HttpError(403, "this machine is no node of the farm")
            asked = msgspec.json.decode(await request.read(MOST_REPORT), type=FloatRequest)
            async with self._deciding:
                order = await asyncio.to_thread(self._hear, key, asked.report, time.time())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HttpError(400, str(error)) from error
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return refusal(503, "the farm's server has a problem: its log says which")
        return Response(msgspec.json.encode(order))

    async def find_blob(self, key: str, digest: str) -> int | None:
        """Its size, if the node may have it: images all nodes, what is in secrets the one that writes. What was so a
        moment ago will do where the directory cannot be read.
        """
        async with self._deciding:
            with contextlib.suppress(Dom0Error):
                await asyncio.to_thread(self._look)
        if key not in self._nodes or self._floating is None:
            return None
        of_images = (blob for image in self._floating.images for blob in image.blobs)
        found = next((blob.size for blob in of_images if blob.digest == digest), None)
        if found is None and key == self._writer:
            found = self._floating.files.get(digest)
        return found

    def _look(self) -> None:
        """What commands have changed. Raises Dom0Error."""
        seen = self._farm.stamp()
        if seen == self._seen:
            return
        self._nodes = {node.key: node for node in self._farm.nodes().nodes if node.state is NodeState.ENROLLED}
        current = self._farm.current()
        self._floating = current.floating if current else None
        self._drained = self._farm.rollout().drained
        for key in self._reports.keys() - self._nodes.keys():
            del self._reports[key]
            self._farm.put_float_report(key, None)
        self._seen = seen

    def _hear(self, key: str, said: FloatReport | None, now: float) -> FloatOrder:
        """What is told is on the disk before anybody is told it. Raises HttpError, Dom0Error."""
        if key not in self._nodes:
            raise HttpError(403, "this machine is no node of the farm")
        if self._floating is None:  # no revision is current: nobody has said that nothing floats
            return FloatOrder(farm=self._settings.name, address=self._nodes[key].address, again=IDLE)
        before = self._reports.get(key)
        if said is not None:
            is_new = before is None or replace(said, since=before.since, last=before.last) != before
            is_late = before is not None and said.place.is_manager and not 0 <= now - before.last < NOTED_EACH
            if is_new or is_late:
                said = replace(said, since=before.since if before and not is_new else now, last=now)
                self._farm.put_float_report(key, replace(said, token=""))
                self._reports[key] = said
        state = self._farm.float_state()
        floating, is_used = self._floating, bool(self._floating.projects or state.began)
        nodes = list(self._nodes.values()) if is_used else [self._nodes[key]]

        def step(state: FloatState) -> tuple[FloatState, Decision]:
            found = decide_here(self._settings, floating, nodes, self._reports, self._drained, state, now)
            return found.state, found

        found = step(state)[1]
        if found.state != state:
            found = self._farm.change_float(step)
        self._writer = next((node.key for node in nodes if node.name == found.writer), "")
        return found.orders[key]


def decide_here(
    settings: FarmSettings,
    floating: Floating,
    nodes: Iterable[Node],
    reports: Mapping[str, FloatReport],
    drained: Collection[str],
    state: FloatState,
    now: float,
) -> Decision:
    """`decide` of what is in a farm's directory."""
    views = [
        FloatNode(
            key=node.key,
            name=node.name,
            role=node.role,
            address=node.address,
            last=node.last,
            is_drained=node.name in drained,
            report=reports.get(node.key),
        )
        for node in sorted(nodes, key=lambda node: node.name)
    ]
    declared = settings.floating.managers
    return decide(settings.name, declared, floating.projects, floating.images, views, state, now)
