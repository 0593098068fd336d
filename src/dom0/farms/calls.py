"""A node's Engine, for whoever owns the farm on its server.

Theory of operation: no node listens for this. A call is a connection that somebody on the server's machine wants; what
/v1/follow answers the node names it (`Order.calls`). The node opens a connection to the server as POST /v1/calls/ID,
with its secret, and connects it with the socket of its own Engine: chunks go both ways until both have ended. So it
works behind any router, a node answers its own calls alone, and what a call reaches is not for the server to choose.

On the server each node that somebody has asked for gets a unix socket, at which its Engine seems to be: docker and dom0
use it as any other, for as long as it is a node. They lie in a directory that `state/reach` leads to, of the user who
serves alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import select
import socket
from asyncio import Future, Task
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import msgspec

from dom0 import temporary
from dom0.engine import address
from dom0.errors import Dom0Error, UsageError
from dom0.farms import pin
from dom0.farms.join import Membership
from dom0.farms.nodes import Node, NodeState, bearer
from dom0.http import server
from dom0.http.channel import READ_AHEAD, Channel, Malformed
from dom0.http.server import HttpError, Request, Response, refusal, route
from dom0.names import FARM_SOCKET
from dom0.times import moment
from dom0.unix_socket import listen

if TYPE_CHECKING:
    from dom0.farms.directory import FarmDirectory
    from dom0.farms.orders import Orders

ANSWER_WITHIN = 10.0  # seconds for a node to answer a call
TELL_AGAIN = 2.0  # seconds until a node is told of it again: what was said on a connection that broke is lost
MOST = 256  # calls of a node at once: `dom0 logs --follow` makes one for each container
GONE_WITHIN = 5.0  # seconds until it is noticed that whoever has called is gone
ACCEPT_AGAIN = 1.0  # seconds until callers are let in again, where there was no descriptor for one
CONTENT = "application/octet-stream"

log = logging.getLogger(__name__)


class Reached(msgspec.Struct, frozen=True):
    """Where a node's Engine is, on the server's machine."""

    socket: str


class Calls:
    """Of the server."""

    def __init__(self, farm: FarmDirectory, orders: Orders) -> None:
        self._farm = farm
        self._orders = orders
        self._asked: dict[tuple[str, str], Future[Channel]] = {}  # by key of the node and ID
        self._untold: dict[str, set[str]] = {}  # IDs by key
        self._open = Counter[str]()  # by key
        self._listening: dict[str, Task[None]] = {}
        self._connected: dict[str, set[Task[None]]] = {}  # by key

    # for nodes

    def has(self, key: str) -> bool:
        """Whether there are some that the node has not been told of."""
        return key in self._untold

    def take(self, key: str) -> tuple[str, ...]:
        """Those, which are told now."""
        return tuple(self._untold.pop(key, ()))

    async def answer(self, request: Request) -> Response:
        """Of a node to a call of its own."""
        key = bearer(request.headers.all("Authorization"))
        answered = self._asked.get((key, request.captured["call"]))
        if answered is None or answered.done():
            raise HttpError(403, "nobody asks this machine for that")

        def take(channel: Channel) -> None:
            if answered.done():
                channel.abort()
            else:
                answered.set_result(channel)

        return Response(content_type=CONTENT, takes=take)

    async def _call(self, key: str) -> Channel:
        """Raises TimeoutError."""
        call, answered = secrets.token_hex(16), Future[Channel]()
        self._asked[key, call] = answered
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                while not answered.done():
                    self._untold.setdefault(key, set()).add(call)
                    self._orders.wake(key)
                    await asyncio.wait([answered], timeout=TELL_AGAIN)
            return answered.result()
        except BaseException:
            if not answered.cancel():
                answered.result().abort()
            raise
        finally:
            del self._asked[key, call]
            if key in self._untold:
                self._untold[key].discard(call)
                if not self._untold[key]:
                    del self._untold[key]

    # for commands on the server's machine

    async def reach(self, directory: Path, request: Request) -> Response:
        """The socket of a node, which has answered a call."""
        try:
            node = (await asyncio.to_thread(self._farm.nodes)).named(request.captured["name"])
            await self._try(node)
        except Dom0Error as error:
            return refusal(400 if isinstance(error, UsageError) else 409, error.message, error.hint)
        path = directory / f"{node.key[:16]}.sock"
        if node.key not in self._listening:
            self._listening[node.key] = asyncio.create_task(self._keep(node.key, listen(path, mode=0o600)))
        log.info("%s is reached by user %s", node.name, request.peer.uid if request.peer else "unknown")
        return Response(msgspec.json.encode(Reached(str(path))))

    async def _try(self, node: Node) -> None:
        """Raises Dom0Error where it does not answer."""
        if node.state is not NodeState.ENROLLED:
            what = f"{node.name}: is {node.state}, and has not asked yet what it is to run"
            raise Dom0Error(what, hint="it has to run dom0, and reach this server: dom0 farm nodes")
        try:
            (await self._call(node.key)).abort()
        except TimeoutError as error:
            hint = "is it on, does it reach this server, does its dom0 run? It asks again by itself: dom0 farm status"
            what = f"{node.name}: does not answer; the server has heard of it last at {moment(node.last)}"
            raise Dom0Error(what, hint=hint) from error

    async def _keep(self, key: str, listening: socket.socket) -> None:
        """The socket and what goes through it, for as long as it is a node."""
        accepting = asyncio.create_task(self._listen(key, listening))
        connected = self._connected[key] = set[Task[None]]()
        try:
            told = ""
            while (found := await self._orders.wait(key, told, lambda: False)) is not None:
                told = found.digest
            log.info("a node that was reached from here is none any more: its calls end")
        finally:
            del self._listening[key]
            await _cancel(accepting, *connected)
            listening.close()  # also where it has not begun to accept

    async def _listen(self, key: str, listening: socket.socket) -> None:
        listening.setblocking(False)
        with listening:
            while True:
                try:
                    caller, _ = await asyncio.get_running_loop().sock_accept(listening)
                except OSError as error:
                    log.warning("calls wait: %s", error)
                    await asyncio.sleep(ACCEPT_AGAIN)
                    continue
                if self._open[key] >= MOST:
                    caller.close()
                    continue
                self._open[key] += 1
                task = asyncio.create_task(self._connect(key, caller))
                self._connected[key].add(task)
                task.add_done_callback(self._connected[key].discard)

    async def _connect(self, key: str, caller: socket.socket) -> None:
        try:
            channel = await self._call(key)
            try:
                await carry(channel, caller, is_caller=True)
            finally:
                channel.abort()
        except (OSError, Malformed) as error:
            log.debug("a call ends: %s", error)
        finally:
            self._open[key] -= 1
            caller.close()

    async def close(self) -> None:
        await _cancel(*self._listening.values())


@asynccontextmanager
async def reachable(farm: FarmDirectory, calls: Calls) -> AsyncIterator[None]:
    """During the block commands on this machine reach nodes. Where that cannot be, the log says why."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(calls.close)
        try:
            directory = stack.enter_context(temporary.directory("reach"))
            routes = {"POST /nodes/{name}": partial(calls.reach, directory)}
            await stack.enter_async_context(server.serve(route(routes), directory / FARM_SOCKET))
            fresh = farm.reach.with_name(f".{farm.reach.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(directory)
            fresh.replace(farm.reach)
            stack.callback(_remove_link, farm.reach, directory)
        except (Dom0Error, OSError) as error:
            log.warning("nodes cannot be reached from here: %s", error)
        yield


def _remove_link(link: Path, target: Path) -> None:
    """Unless it is another server's by now."""
    with contextlib.suppress(OSError):
        if link.readlink() == target:
            link.unlink()


async def answer(membership: Membership, call: str) -> None:
    """Of a node: connect this machine's Engine with what its server has asked for."""
    at = address.find(None, os.environ, Path.home())
    server = pin.parse(f"{membership.address}:{membership.fingerprint}")
    headers = {"Host": "farm", "Authorization": f"Bearer {membership.secret}", "Transfer-Encoding": "chunked"}
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.setblocking(False)
            await asyncio.get_running_loop().sock_connect(engine, at.socket)
            channel = Channel(h11.CLIENT, await pin.connect(server))
            try:
                asking = h11.Request(method="POST", target=f"/v1/calls/{call}", headers=list(headers.items()))
                await channel.send(asking)
                head = await channel.receive()
                if isinstance(head, h11.Response) and head.status_code == 200:
                    await carry(channel, engine, is_caller=False)
            finally:
                channel.abort()
    except (Dom0Error, OSError, Malformed) as error:
        log.debug("a call of the farm's server: %s", error)


async def carry(channel: Channel, near: socket.socket, *, is_caller: bool) -> None:
    """Both ways, until both have ended, or what still comes goes to nobody. Raises OSError, Malformed.

    What an Engine has said is heard to the end; nobody waits for the end of what a caller says to one that has closed.
    Past asyncio's streams: they forget what was said by who takes no more.
    """
    channel.keep_alive()
    poll = select.poll()
    poll.register(near, 0)  # says when it has closed both ways
    sending, receiving = asyncio.create_task(_send(channel, near)), asyncio.create_task(_receive(channel, near))
    ways = {sending, receiving}
    try:
        while ways:
            done, ways = await asyncio.wait(ways, timeout=GONE_WITHIN, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
            if is_caller and receiving in done and sending in ways:
                await _cancel(sending)
                done, ways = {sending}, set()
            if sending in done:
                await channel.send(h11.EndOfMessage())
            is_in_vain = is_caller and sending.done() and poll.poll(0)
            if ways and (is_in_vain or (receiving.done() and channel.is_gone)):
                return
        await channel.close()
    finally:
        await _cancel(sending, receiving)


async def _send(channel: Channel, near: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while piece := await _recv(loop, near):
        await channel.send_content(piece)


async def _recv(loop: asyncio.AbstractEventLoop, near: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(near, READ_AHEAD)
    except ConnectionResetError:  # it has closed, and not taken all
        return b""


async def _receive(channel: Channel, near: socket.socket) -> None:
    loop, is_taken = asyncio.get_running_loop(), True
    while isinstance(event := await channel.receive(), h11.Data):
        try:
            if is_taken:
                await loop.sock_sendall(near, event.data)
        except ConnectionError:
            is_taken = False
    with contextlib.suppress(OSError):
        near.shutdown(socket.SHUT_WR)


async def _cancel(*tasks: Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
