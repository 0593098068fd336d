"""Images between the nodes of a farm: a node serves the blobs of its role to the nodes that the server allows, and asks
other nodes before the server.

Theory of operation: a blob has a pass, which the server derives from its digest and gives to every node whose role has
that blob. A node that proves that it knows the pass gets the blob. The server tells nodes each other's addresses, with
the fingerprints of their certificates. A node that is asked may have another role, and not know the pass: what it is
shown is valid for itself alone. What arrives is checked by its digest, as from any peer (`registry/peers`). Private
files are no blobs of images, have no pass, and come from the server only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from dom0.durable import write_atomic
from dom0.errors import Dom0Error
from dom0.farms import pin
from dom0.farms.pin import NotTheServer, Pin
from dom0.farms.revisions import MOST_GIVERS, Giver, Gives, Peers
from dom0.http import server
from dom0.http.channel import Streams
from dom0.http.server import Handler, HttpError, Request, Response, route
from dom0.registry.depot import Depot
from dom0.registry.listening import listen
from dom0.registry.peers import FindChunks, Peer, PeeredBlobs, Upstream
from dom0.registry.serve import Given

PORT = 7702  # where a node gives, if nobody else has it
PEM = "farm-node.pem"
MOST = 64  # connections at once
MOST_EACH = 16  # of one address
LEFT_OUT = 2.0  # seconds that one which fails is not asked, at first; the server's line is dearer than this
UNREAD = 60.0  # seconds that a node may leave what is sent to it unread
_AT = (("::", PORT), ("0.0.0.0", PORT), ("0.0.0.0", 0))  # noqa: S104 -- who has no pass gets nothing
_IN_MEMORY = ("tmpfs", "ramfs", "rootfs")


def make_passes(pem: bytes, digests: Iterable[str]) -> dict[str, str]:
    """By digest; the same ones as long as the server has the key in `pem`."""
    key = hashlib.sha256(b"passes of blobs\n" + pem).digest()
    return {digest: hmac.new(key, digest.encode(), "sha256").hexdigest() for digest in digests}


def proof(key: str, fingerprint: str) -> str:
    """That the pass `key` is known, for the node whose certificate has the `fingerprint`; nobody learns the pass."""
    return hmac.new(key.encode(), fingerprint.encode(), "sha256").hexdigest()


@asynccontextmanager
async def giving(state: Path, depot: Depot, passes: Mapping[str, str]) -> AsyncIterator[Gives]:
    """Give what `depot` has of the blobs in `passes`, which may change meanwhile, to whoever knows the one of a blob.

    Raises Dom0Error, OSError.
    """
    pem = state / PEM
    try:
        fingerprint = pin.fingerprint(pem)
        tls = pin.of_server(pem)
    except Dom0Error:  # there is none, or it is damaged
        write_atomic(pem, await pin.make_certificate("node"))
        fingerprint, tls = pin.fingerprint(pem), pin.of_server(pem)
    given = Given(depot, only_public=False)

    def checked(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            wanted = passes.get(request.captured["digest"], "")
            shown = request.headers.all("Authorization")
            if not wanted:  # or not yet: who asks may know sooner
                raise HttpError(404, "Not Found")
            expected = f"Bearer {proof(wanted, fingerprint)}"
            if len(shown) != 1 or not hmac.compare_digest(shown[0].encode(), expected.encode()):
                raise HttpError(403, "this is given to nodes whose role has it")
            return await handler(request)

        return answer

    routes = {"GET /blobs/{digest}": checked(given.blob), "GET /blobs/{digest}/from/{at}": checked(given.share)}
    with _listening() as listening:
        found = Gives(port=listening.getsockname()[1], fingerprint=fingerprint)
        serving = server.serve(route(routes), listening, most=MOST, most_each=MOST_EACH, unread=UNREAD, tls=tls)
        async with serving:
            yield found


def _listening() -> socket.socket:
    """Raises OSError."""
    for host, port in _AT[:-1]:
        try:
            return listen(host, port)
        except OSError:
            continue
    return listen(*_AT[-1])


class Blobs(PeeredBlobs):
    """Of nodes, else of the server; nobody else may have them."""

    is_anonymous = False


class PeerNodes:
    """Other ones, as the server has told of them last; `passes` is what `giving` goes by. `close` it at the end."""

    def __init__(self) -> None:
        self.passes: dict[str, str] = {}
        self._peers: dict[Giver, Peer] = {}

    async def know(self, told: Peers) -> None:
        """One that is told of again is who it was: if it was left out it stays so."""
        self.passes.clear()
        self.passes.update(told.passes)
        before, nodes = self._peers, told.nodes[:MOST_GIVERS]
        self._peers = {node: before.get(node) or _peer(node, self.passes) for node in nodes}
        for node in before.keys() - self._peers.keys():
            await before[node].close()

    def asked_before(self, server: Upstream, depot: Depot, find_chunks: FindChunks) -> Blobs:
        return Blobs(server, [*self._peers.values()], depot, find_chunks)

    async def close(self) -> None:
        await self.know(Peers())


def _peer(giver: Giver, passes: Mapping[str, str]) -> Peer:
    at = Pin(giver.address, giver.port, giver.fingerprint)

    async def connect() -> Streams:
        try:
            return await pin.connect(at)
        except NotTheServer as error:
            raise ConnectionError(error.message) from error

    def authorize(digest: str) -> dict[str, str]:
        known = passes.get(digest)
        return {"Authorization": f"Bearer {proof(known, giver.fingerprint)}"} if known else {}

    host = f"[{giver.address}]" if ":" in giver.address else giver.address
    return Peer(f"{host}:{giver.port}", connect, authorize, LEFT_OUT)


def is_in_memory(path: Path) -> bool:
    """Whether what is written there takes memory, as on a machine without a data disk."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1] in _IN_MEMORY
    return False
