"""What the farm's server answers its machines, over TLS that it is recognised by (`pin`).

POST /v1/hello    {hostname, architecture, memory}, with the machine's secret as a bearer token
                  -> Standing: whether it waits, and with which code, or which node of the farm it is

All that is decided is decided in `nodes`, and on the disk before it is answered.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from dom0.errors import Dom0Error
from dom0.farm import pin
from dom0.farm.directory import FarmDirectory
from dom0.farm.nodes import Machine, Node, Nodes, NodeState, TooMany, draw_code, hear, key_of
from dom0.http import server
from dom0.http.server import HttpError, Request, Response, refusal, route

MOST = 512  # connections at once
MOST_EACH = 32  # of one address
UNREAD = 30.0  # seconds that a machine may leave an answer unread
MOST_BYTES = 4096  # of a body
_BEARER = re.compile(r"Bearer ([0-9a-f]{64})")

log = logging.getLogger(__name__)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is here. `code` where it waits, `name` and `role` where it is a node."""

    farm: str
    state: NodeState
    code: str = ""
    name: str = ""
    role: str = ""


@asynccontextmanager
async def serve(farm: FarmDirectory, listening: socket.socket) -> AsyncIterator[None]:
    """Until the block ends. Raises Dom0Error, OSError."""
    answer = route({"POST /v1/hello": _Control(farm).hello})
    tls = pin.of_server(farm.server_pem)
    async with server.serve(answer, listening, most=MOST, most_each=MOST_EACH, unread=UNREAD, tls=tls):
        yield


class _Control:
    def __init__(self, farm: FarmDirectory) -> None:
        self._farm = farm
        self._name = farm.settings().name

    async def hello(self, request: Request) -> Response:
        said = request.headers.all("Authorization")
        secret = _BEARER.fullmatch(said[0]) if len(said) == 1 else None
        if secret is None:
            raise HttpError(401, "a machine's secret is missing: 64 hexadecimal digits as a bearer token")
        try:
            machine = msgspec.json.decode(await request.read(MOST_BYTES), type=Machine)
        except msgspec.DecodeError as error:
            raise HttpError(400, str(error)) from error
        key, now = key_of(secret[1]), time.time()

        def step(nodes: Nodes) -> tuple[Nodes, tuple[Node | None, Node]]:
            before = next((node for node in nodes.nodes if node.key == key), None)
            after, node = hear(nodes, key, machine, request.address, now, draw_code)
            return after, (before, node)

        try:
            before, node = await asyncio.to_thread(self._farm.change, step)
        except TooMany as error:
            raise HttpError(429, error.message) from error
        except Dom0Error as error:
            log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
            return refusal(503, "the farm's server has a problem: its log says which")
        if before is None:
            log.info("%s waits: code %s at %s", node.machine.hostname or "a machine", node.code, node.address)
        elif before.state is not node.state:
            log.info("%s is enrolled, with the role %s", node.name, node.role)
        standing = Standing(farm=self._name, state=node.state, code=node.code, name=node.name, role=node.role)
        return Response(msgspec.json.encode(standing))
