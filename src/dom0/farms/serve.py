"""What the farm's server answers its machines, over TLS that it is recognised by (`pin`).

POST /v1/hello    {hostname, architecture, memory, ticket}, with the machine's secret as a bearer token
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
from contextlib import asynccontextmanager, suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from dom0.errors import Dom0Error
from dom0.farms import pin
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import (
    Machine,
    Node,
    Nodes,
    NodeState,
    NotAdmitted,
    Standing,
    TooMany,
    draw_code,
    enroll,
    hear,
    key_of,
)
from dom0.http import server
from dom0.http.server import HttpError, Request, Response, refusal, route

MOST = 512  # connections at once
MOST_EACH = 32  # of one address
UNREAD = 30.0  # seconds that a machine may leave an answer unread
MOST_BYTES = 4096  # of a body
_BEARER = re.compile(r"Bearer ([0-9a-f]{64})")

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(farm: FarmDirectory, listening: socket.socket) -> AsyncIterator[None]:
    """Until the block ends. Raises Dom0Error, OSError."""
    answer = route({"POST /v1/hello": _Control(farm).hello})
    tls = pin.of_server(farm.server_pem)
    async with server.serve(answer, listening, most=MOST, most_each=MOST_EACH, unread=UNREAD, tls=tls):
        yield


class Hello(Machine, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ticket`: of one that was started from the network, once it was approved there."""

    ticket: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


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
            hello = msgspec.json.decode(await request.read(MOST_BYTES), type=Hello)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HttpError(400, str(error)) from error
        key, address, now = key_of(secret[1]), request.address, time.time()
        try:
            before, node = await asyncio.to_thread(
                self._farm.change, lambda nodes: _heard(nodes, key, hello, address, now)
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


def _heard(
    nodes: Nodes, key: str, hello: Hello, address: str, now: float
) -> tuple[Nodes, tuple[NodeState | None, Node]]:
    """What there is after that word, what the machine was before and what it is now. Raises NotAdmitted, TooMany."""
    known = next((node for node in nodes.nodes if node.key == key), None)
    if known is not None and known.is_in_loader:
        raise NotAdmitted("a pass or a ticket is no machine's secret")
    if hello.ticket:
        with suppress(NotAdmitted):  # it stays what it is then
            nodes, _ = enroll(nodes, key_of(hello.ticket), key, now)
            known = None  # but another node, from now on
    machine = Machine(hostname=hello.hostname, architecture=hello.architecture, memory=hello.memory)
    after, node = hear(nodes, key, machine, address, now, draw_code)
    return after, (known.state if known else None, node)
