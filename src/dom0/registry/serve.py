"""Gives blobs of a depot to other machines, over HTTP: by their digests, those that came without a login, and nothing
else. Who gets them checks them.

`/blobs/DIGEST` is the blob, of one that still comes what is here of the range that is asked for; `/blobs/DIGEST/from/N`
says how much of it is here (`Shared`), `/manifests/DIGEST` is a manifest or index. Names and tags mean nothing here.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address

import msgspec

from dom0.durable import write_atomic
from dom0.errors import Final
from dom0.http import server
from dom0.http.server import Handler, HttpError, Request, Response, route
from dom0.registry.depot import Depot
from dom0.registry.listening import Network, is_among
from dom0.registry.manifest import MOST_BYTES, parse_manifest
from dom0.registry.patience import Allowance
from dom0.registry.reference import digest_flaw
from dom0.registry.shared import Share, read, share

MOST = 64  # connections at once
MOST_EACH = 16  # of one address: a pull has two for each of its workers
UNREAD = 120.0  # seconds that a client may leave what is sent to it unread
BLOB_TYPE = "application/octet-stream"
PIECE = 256 << 10  # bytes
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
_NUMBER = re.compile(r"[0-9]{1,15}")
_PORT = re.compile(r":[0-9]{1,5}\Z")
_NODE = re.compile(r"[0-9a-f]{32}")


class Shared(Share, frozen=True):
    """`node`: of which depot (`node_of`)."""

    node: str = ""


@asynccontextmanager
async def serve(
    depot: Depot,
    listening: socket.socket,
    *,
    allow: Sequence[Network] = (),
    rate: float = 0.0,
    mirror: Handler | None = None,
) -> AsyncIterator[None]:
    """Until the block ends. `allow`: who may ask, () for everybody. `rate`: bytes a second of blobs to all clients
    together, 0 for no limit. `mirror` answers what is asked under `/v2/`.
    """
    given = Given(depot, rate)
    routes = {
        "GET /blobs/{digest}": given.blob,
        "GET /blobs/{digest}/from/{at}": given.share,
        "GET /manifests/{digest}": given.manifest,
    }
    answer = route(routes)

    async def checked(request: Request) -> Response:
        check_request(request)
        asks_mirror = mirror is not None and request.parts[:2] == ("", "v2")
        return await (mirror if mirror is not None and asks_mirror else answer)(request)

    most_each = MOST if mirror else MOST_EACH  # a mirror has one client, the Engine
    admits = partial(is_among, networks=allow) if allow else None
    async with server.serve(checked, listening, most=MOST, most_each=most_each, admits=admits, unread=UNREAD):
        yield


def check_request(request: Request) -> None:
    """No web page may ask, also not under a name that leads here (DNS rebinding). Raises HttpError."""
    hosts = request.headers.all("Host")
    name = _PORT.sub("", hosts[0]).lower() if len(hosts) == 1 else ""
    if name not in ("localhost", os.uname().nodename.lower()) and not _is_address(name):
        raise HttpError(403, "Host has to be an address, or the name that this machine has itself")
    if request.headers.all("Origin") or request.headers.all("Sec-Fetch-Site"):
        raise HttpError(403, "a web page may not ask")


def node_of(depot: Depot) -> str:
    """Which depot this is among those of peers: 32 hexadecimal digits, the same ones for ever. Raises Unwritable."""
    path = depot.root / "node"
    try:
        found = path.read_text()
    except (OSError, ValueError):
        found = ""
    if not _NODE.fullmatch(found):
        found = secrets.token_hex(16)
        write_atomic(path, found.encode())
    return found


class Given:
    """What is asked of a depot. `only_public`: what came with a login is given to nobody."""

    def __init__(self, depot: Depot, rate: float = 0.0, *, only_public: bool = True) -> None:
        self._depot = depot
        self._only_public = only_public
        self._allowance = Allowance(rate)
        # With as many clients as there can be each gets one a second: peers are left that are silent for longer.
        self._piece = min(PIECE, max(1, int(rate) // MOST)) if rate else PIECE
        self._node = node_of(depot)

    async def blob(self, request: Request) -> Response:
        """Without a range only a whole one."""
        digest = _digest(request)
        asked = request.headers.all("Range")
        wanted = RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
        if asked and wanted is None:
            raise HttpError(416, "one range is given, from a first byte on: bytes=0-1023")
        start = int(wanted[1]) if wanted else 0
        found = await self._find(digest, start)
        if found.size is None or (wanted is None and found.coming != "whole"):
            raise HttpError(503, "it is not whole yet: ask for a range")
        last = min(int((wanted and wanted[2]) or found.size), start + found.ready - 1)
        if last < start and (wanted or found.size):
            raise HttpError(416 if start >= found.size or found.ready else 503, "nothing is here of that range")
        headers = [("Content-Length", str(last + 1 - start)), ("Accept-Ranges", "bytes")]
        if wanted:
            headers.append(("Content-Range", f"bytes {start}-{last}/{found.size}"))
        stop = start if request.method == "HEAD" else last + 1
        return Response(self._bytes(digest, start, stop), 206 if wanted else 200, BLOB_TYPE, tuple(headers))

    async def share(self, request: Request) -> Response:
        digest, at = _digest(request), request.captured["at"]
        if not _NUMBER.fullmatch(at):
            raise HttpError(404, "Not Found")
        found = await self._find(digest, int(at))
        return Response(msgspec.json.encode(Shared(found.coming, found.size, found.have, found.ready, self._node)))

    async def manifest(self, request: Request) -> Response:
        digest = _digest(request)
        found = await self._find(digest, 0)
        if found.coming != "whole" or found.have > MOST_BYTES:
            raise HttpError(404, "Not Found")
        raw = await asyncio.to_thread(self._read, digest, 0, found.have)
        try:
            kind = parse_manifest(raw, "").media_type
        except Final:
            raise HttpError(404, "Not Found") from None
        return Response(raw, content_type=kind, headers=(("Docker-Content-Digest", digest),))

    async def _find(self, digest: str, at: int) -> Share:
        found = await asyncio.to_thread(share, self._depot, digest, at, only_public=self._only_public)
        if found is None:
            raise HttpError(404, "Not Found")
        return found

    async def _bytes(self, digest: str, start: int, stop: int) -> AsyncGenerator[bytes]:
        while start < stop:
            data = await asyncio.to_thread(self._read, digest, start, min(self._piece, stop - start))
            if not data:
                raise ConnectionAbortedError("it has gone")
            if wait := self._allowance.take(len(data), asyncio.get_running_loop().time()):
                await asyncio.sleep(wait)
            yield data
            start += len(data)

    def _read(self, digest: str, at: int, count: int) -> bytes:
        return read(self._depot, digest, at, count, only_public=self._only_public)


def _digest(request: Request) -> str:
    """Raises HttpError."""
    digest = request.captured["digest"]
    if digest_flaw(digest):
        raise HttpError(404, "Not Found")
    return digest


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
