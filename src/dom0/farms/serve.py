"""What the farm's server answers its machines, over TLS that it is recognised by (`pin`).

POST /v1/hello    {hostname, architecture, memory, ticket}, with the machine's secret as a bearer token
                  -> Standing: whether it waits, and with which code, or which node of the farm it is
POST /v1/follow   {report, told}, of a node -> Order: what it is to run; the answer waits until that is another one
                  than it was `told` last; 204 where nothing is new for a minute
POST /v1/peers    of a node -> Peers: which others it may ask for blobs of its role first, and with what (`peers`)
GET /v1/chunks/DIGEST  SHA-256 of each MiB of such a blob, one after the other: a node checks by it what others give
GET /v1/blobs/DIGEST   what the images and private files of its own role are made of; a range of it, if one is asked for
POST /v1/float    {report}, of a node -> FloatOrder: what it is in the farm's Swarm (`float_server`)
POST /v1/services  {wants, offers}, of a node -> ServicesAnswer: where services of other nodes are (`services`)
POST /v1/pre-reboot, /v1/steady-state    whether it may reboot (`lock`)
POST /v1/calls/ID      a node's Engine, for a call that its order names: chunks both ways (`calls`)

All that is decided is decided in `nodes` and `orders`, and on the disk before it is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0.errors import Dom0Error
from dom0.farms import calls, epoch, pin
from dom0.farms.calls import Calls
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_server import FloatServer
from dom0.farms.lock import FleetLock
from dom0.farms.nodes import (
    MachineInfo,
    Node,
    Nodes,
    NodeState,
    NotAdmitted,
    Standing,
    TooMany,
    bearer,
    draw_code,
    enroll,
    hear,
    key_of,
)
from dom0.farms.orders import Orders
from dom0.farms.peers import make_passes
from dom0.farms.revisions import FollowRequest, Peers
from dom0.farms.services import ServiceServer
from dom0.http import server
from dom0.http.server import Handler, HttpError, Request, Response, refusal, route
from dom0.registry.journal import CHUNK
from dom0.registry.recent import remember
from dom0.registry.reference import digest_flaw
from dom0.registry.serve import BLOB_TYPE, PIECE, RANGE

MOST = 512  # connections at once, and of nodes that there are when it starts
MOST_OF_NODE = 4  # the one in which an answer waits, the next, and two that fetch
MOST_EACH = 32  # of one address
UNREAD = 30.0  # seconds that a machine may leave an answer unread
MOST_BYTES = 4096  # of a body

T = TypeVar("T")
log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(farm: FarmDirectory, listening: socket.socket) -> AsyncIterator[Orders]:
    """Until the block ends. Raises Dom0Error, OSError."""
    orders = Orders(farm)
    asked, floats, services = Calls(farm, orders), FloatServer(farm), ServiceServer(orders)
    control, lock = _Control(farm, orders, asked, floats), FleetLock(farm)
    routes = {
        "POST /v1/hello": control.hello,
        "POST /v1/follow": control.follow,
        "POST /v1/peers": control.peers,
        "GET /v1/chunks/{digest}": control.chunks,
        "POST /v1/float": lambda request: floats.ask(_key(request), request),
        "POST /v1/services": lambda request: services.ask(_key(request), request),
        "GET /v1/blobs/{digest}": control.blob,
        "POST /v1/pre-reboot": lock.pre_reboot,
        "POST /v1/steady-state": lock.steady_state,
        "POST /v1/calls/{call}": asked.answer,
    }
    farm.check_is_server()
    handler = _of_epoch(farm, route(routes))
    tls = pin.of_server(farm.server_pem)
    count = len(farm.nodes().nodes)
    most = MOST + MOST_OF_NODE * count
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = 2 * (most + calls.MOST * count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(descriptors, hard)), hard))
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(orders.keep())
        try:
            async with (
                calls.reachable(farm, asked),
                server.serve(handler, listening, most=most, most_each=MOST_EACH, unread=UNREAD, tls=tls),
            ):
                yield orders
        finally:
            keeping.cancel()


def _of_epoch(farm: FarmDirectory, handler: Handler) -> Handler:
    """Says of each answer which copy of the farm's server it is from. One that is not it any more says nothing else."""

    async def answer(request: Request) -> Response:
        heard = request.headers.get(epoch.HEADER)
        try:
            epochs = farm.epochs()
            if epoch.is_older(epochs.own, heard) and not epochs.is_superseded:
                epochs = await asyncio.to_thread(farm.hear_epoch, heard)
                if epochs.is_superseded:
                    log.error("another copy of this farm was promoted, and is its server: nobody is answered here")
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return refusal(503, "the farm's server has a problem: its log says which")
        if epochs.is_superseded:
            return refusal(epoch.SUPERSEDED, "another copy of this farm was promoted, and is its server")
        try:
            response = await handler(request)
        except HttpError as error:
            response = refusal(error.status, error.reason)
        return replace(response, headers=(*response.headers, (epoch.HEADER, epochs.own)))

    return answer


class Hello(MachineInfo, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """`ticket`: of one that was started from the network, once it was approved there."""

    ticket: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class _Control:
    def __init__(self, farm: FarmDirectory, orders: Orders, asked: Calls, floats: FloatServer) -> None:
        self._farm = farm
        self._orders = orders
        self._calls = asked
        self._floats = floats
        self._name = farm.settings().name
        self._pem = farm.server_pem.read_bytes()
        self._chunks: dict[str, asyncio.Task[bytes]] = {}  # by digest

    async def hello(self, request: Request) -> Response:
        key, address = _key(request), request.address
        hello = await _read(request, Hello)
        try:
            before, node = await asyncio.to_thread(
                self._farm.change, lambda nodes: _heard(nodes, key, hello, address, time.time())
            )
        except NotAdmitted as error:
            raise HttpError(403, error.message) from error
        except TooMany as error:
            raise HttpError(429, error.message) from error
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return refusal(503, "the farm's server has a problem: its log says which")
        if node.state is NodeState.WAITING and before is not NodeState.WAITING:
            log.info("%s waits: code %s at %s", node.machine.hostname or "a machine", node.code, node.address)
        elif node.state is not before:
            log.info("%s is enrolled, with the role %s", node.name, node.role)
        standing = Standing(farm=self._name, state=node.state, code=node.code, name=node.name, role=node.role)
        return Response(msgspec.json.encode(standing))

    async def follow(self, request: Request) -> Response:
        key = _key(request)
        asked = await _read(request, FollowRequest)
        try:
            await self._orders.hear(key, asked.report, request.address, lambda: request.is_gone, asked.gives)
            told = await self._orders.wait(key, asked.told, lambda: request.is_gone or self._calls.has(key))
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return refusal(503, "the farm's server has a problem: its log says which")
        if told is None:
            raise HttpError(403, "this machine is no node of the farm")
        asked_for = () if request.is_gone else self._calls.take(key)
        if told.digest == asked.told and not asked_for:
            return Response(status=server.NO_CONTENT)
        return Response(msgspec.json.encode(replace(told.order, calls=asked_for, told=told.digest)))

    async def peers(self, request: Request) -> Response:
        key = _key(request)
        with suppress(Dom0Error):  # as for blobs
            await self._orders.look()
        blobs = self._orders.find_blobs(key)
        if not blobs:
            raise HttpError(403, "this is no node of the farm, or its role has no revision")
        found = Peers(passes=make_passes(self._pem, blobs), nodes=self._orders.find_givers(key))
        return Response(msgspec.json.encode(found))

    async def chunks(self, request: Request) -> Response:
        digest, _ = await self._find_blob(request)
        hashing = self._chunks.get(digest)
        if hashing is None or (hashing.done() and hashing.exception()):
            hashing = asyncio.create_task(asyncio.to_thread(_hash_chunks, self._farm.blob(digest)))
            remember(self._chunks, digest, hashing)
        try:
            return Response(await asyncio.shield(hashing), content_type=BLOB_TYPE)
        except OSError as error:
            raise HttpError(503, "the farm's server cannot read it") from error

    async def _find_blob(self, request: Request) -> tuple[str, int]:
        """Digest and size. What neither is of the node's own role nor floats is refused, whether it is there or not."""
        digest = request.captured["digest"]
        key = _key(request)
        with suppress(Dom0Error):  # what was so a moment ago will do
            await self._orders.look()
        size = None
        if not digest_flaw(digest):
            size = self._orders.find_blob(key, digest)
            size = await self._floats.find_blob(key, digest) if size is None else size
        if size is None:
            raise HttpError(403, "this is nothing of the role that this machine has")
        if not self._farm.has_blob(digest, size):
            log.error("%s: is damaged or gone: dom0 farm up writes it anew", self._farm.blob(digest))
            raise HttpError(503, "the farm's server does not have it")
        return digest, size

    async def blob(self, request: Request) -> Response:
        digest, size = await self._find_blob(request)
        asked = request.headers.all("Range")
        wanted = RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
        start = int(wanted[1]) if wanted else 0
        last = min(int((wanted and wanted[2]) or size), size - 1)
        if (asked and wanted is None) or (wanted and last < start):
            raise HttpError(416, "one range is given: bytes=0-1023")
        headers = [("Content-Length", str(last + 1 - start)), ("Accept-Ranges", "bytes")]
        if wanted:
            headers.append(("Content-Range", f"bytes {start}-{last}/{size}"))
        stop = start if request.method == "HEAD" else last + 1
        return Response(self._bytes(digest, start, stop), 206 if wanted else 200, BLOB_TYPE, tuple(headers))

    async def _bytes(self, digest: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        descriptor = await asyncio.to_thread(os.open, self._farm.blob(digest), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            while start < stop:
                data = await asyncio.to_thread(os.pread, descriptor, min(PIECE, stop - start), start)
                if not data:
                    raise ConnectionAbortedError("it has gone")
                start += len(data)
                yield data
        finally:
            os.close(descriptor)


def _hash_chunks(path: Path) -> bytes:
    """Raises OSError."""
    with path.open("rb") as file:
        return b"".join(sha256(piece).digest() for piece in iter(lambda: file.read(CHUNK), b""))


def _key(request: Request) -> str:
    """Of whoever asks. Raises HttpError."""
    key = bearer(request.headers.all("Authorization"))
    if not key:
        raise HttpError(401, "a machine's secret is missing: 64 hexadecimal digits as a bearer token")
    return key


async def _read(request: Request, kind: type[T]) -> T:
    """Raises HttpError."""
    try:
        return msgspec.json.decode(await request.read(MOST_BYTES), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpError(400, str(error)) from error


def _heard(
    nodes: Nodes, key: str, hello: Hello, address: str, now: float
) -> tuple[Nodes, tuple[NodeState | None, Node]]:
    """The nodes after that heartbeat, what the machine was before and what it is now. Raises NotAdmitted, TooMany."""
    known = next((node for node in nodes.nodes if node.key == key), None)
    if known is not None and known.is_in_loader:
        raise NotAdmitted("a pass or a ticket is no machine's secret")
    if hello.ticket:
        with suppress(NotAdmitted):  # it stays what it is then
            nodes, _ = enroll(nodes, key_of(hello.ticket), key, now)
            known = None  # but another node, from now on
    machine = MachineInfo(hostname=hello.hostname, architecture=hello.architecture, memory=hello.memory)
    after, node = hear(nodes, key, machine, address, now, draw_code)
    return after, (known.state if known else None, node)
