"""Layers into an Engine on this machine while others of the same image still come: it takes and unpacks those that are
whole. Nothing relies on it: what the Engine has not taken so comes with the archive.

Theory of operation: of an archive an Engine unpacks nothing before its end, of what it pulls each layer as it comes. So
it is asked to pull from an address of this machine, which gives layers while they come, to who has a password that only
the Engine is told. It verifies each before it unpacks it. What they become is not counted before, as of an archive:
that takes as long as unpacking them. The Engine's disk is watched instead, and its pull ended while there is room left;
what it has unpacked goes then.

One with a graph driver is asked for an image with one layer more, which never comes. While it waits for that it keeps
the others unpacked, and the archive needs none of them; then its pull is ended. So no image of ours is there at any
time. One whose images containerd keeps does not say what it has unpacked until its pull ends: there it pulls the image
itself, index included, by a name of ours with the port that gives it; what is left is to name it, and it needs no
archive. After a kill that name stays, until a pull removes names whose port nobody listens at.

Sources: moby's `distribution/pull_v2.go` and `distribution/xfer/download.go`; containerd's `core/unpack/unpacker.go`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
import socket
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from dom0.engine.protocol import Engine, find_image
from dom0.errors import EngineError
from dom0.http import server
from dom0.http.channel import Channel, nothing
from dom0.http.server import HttpError, Request, Response
from dom0.images.loading import LOADED, NamedImage, remove_name
from dom0.names import short_id
from dom0.registry.credentials import Login
from dom0.registry.depot import Depot
from dom0.registry.listening import listen
from dom0.registry.manifest import Descriptor, digest_of
from dom0.registry.serve import BLOB_TYPE

SILENCE = 15.0  # seconds in which the Engine takes no byte and says nothing, after which it is not waited for
MOST_HELD = 120.0  # seconds: an Engine downloads three layers at once, so pulls of others wait while it waits for ours
_HOST = "127.0.0.1"
RETRIES = "Retrying in "  # how the Engine says it: moby's distribution/xfer/download.go
_MOST = 16  # connections: an Engine takes three layers at once
_LOOK_AGAIN = 0.02  # seconds
_PIECE = 256 << 10  # bytes: each thread keeps the memory of one or two
_HAS = ("Pull complete", "Already exists")  # of a layer, as a graph driver's Engine says it
_NEVER = Descriptor("application/vnd.oci.image.layer.v1.tar", digest_of(b"this layer never comes"), 1024)
_NAME = re.compile(rf"127\.0\.0\.1:([0-9]{{1,5}})/{LOADED}:[0-9a-f]+")
_VERSION = (("Docker-Distribution-Api-Version", "registry/2.0"),)

log = logging.getLogger(__name__)


@asynccontextmanager
async def feeding(
    engine: Engine,
    depot: Depot,
    image: NamedImage,
    diff_ids: Sequence[str],
    coming: Sequence[Descriptor],
    disk: EngineDisk,
    *,
    containerd_store: bool,
) -> AsyncIterator[Feed]:
    """During the block the Engine takes the layers that are `coming`, as long as its disk has room.

    Raises EngineError where nothing can listen.
    """
    try:
        listening = listen(_HOST, 0)
    except OSError as error:
        raise EngineError(f"{_HOST}: {error.strerror}") from error
    with listening:
        port = listening.getsockname()[1]
        feed = Feed(engine, depot, image, diff_ids, coming, disk, port, containerd_store=containerd_store)
        async with server.serve(feed.answer, listening, most=_MOST, end_within=0):
            feed.begin()
            try:
                yield feed
            finally:
                await feed.end()


async def remove_left_names(engine: Engine) -> None:
    """Those of processes that were killed. Raises EngineError."""
    for row in await engine.images(named=f"{_HOST}:*/{LOADED}"):
        for found in filter(None, map(_NAME.fullmatch, row.tags)):
            if not await asyncio.to_thread(_is_listened_at, int(found[1])):
                await remove_name(engine, found[0])


def _is_listened_at(port: int) -> bool:
    with suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
        return True
    return False


class EngineDisk(NamedTuple):
    """`root`: a directory on it; `least`: bytes that stay free."""

    root: Path
    least: int


class Feed:
    """One pull of the Engine's, and what answers it."""

    def __init__(
        self,
        engine: Engine,
        depot: Depot,
        image: NamedImage,
        diff_ids: Sequence[str],
        coming: Sequence[Descriptor],
        disk: EngineDisk,
        port: int,
        *,
        containerd_store: bool,
    ) -> None:
        self._engine = engine
        self._depot = depot
        self._coming = {layer.digest: layer for layer in coming}
        self._disk = disk
        self._stop = threading.Event()
        self._containerd_store = containerd_store
        self._name = f"{_HOST}:{port}/{LOADED}:{short_id(image.id)}"
        self._login = Login("dom0", secrets.token_hex(16)).for_engine(f"{_HOST}:{port}")
        self._image = image
        self._layers = tuple(layer.digest for layer in image.manifest.layers)
        if containerd_store:
            tops = [each for each in (image.index, image.manifest) if each is not None]
            self._manifests = [(each.raw, each.media_type) for each in tops]
            self._config = depot.path(image.manifest.config.digest).read_bytes()
        else:
            manifest, self._config = _with_one_more(image, diff_ids)
            self._manifests = [(manifest, image.manifest.media_type)]
        self._config_digest = digest_of(self._config)
        self._given = set[str]()
        self._there = Counter[str]()  # by short digest: layers that the Engine says it has
        self._ended: bool | None = None  # whether its pull has, and well
        self._changed = asyncio.Event()
        self._pulling: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(_MOST + 1)
        self._targets = set[socket.socket]()  # of those

    def begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._pulling = asyncio.create_task(self._pull())
        self._leaving = loop.call_later(MOST_HELD, self._leave, "others may wait for it")
        loop.run_in_executor(self._threads, self._watch_disk, loop)

    async def end(self) -> None:
        self._stop.set()
        if self._leaving is not None:
            self._leaving.cancel()
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)
        for target in self._targets:
            with suppress(OSError):  # it is not connected any more
                target.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(self._threads.shutdown)
        if self._containerd_store:
            await remove_name(self._engine, self._name)

    async def taken(self) -> frozenset[str]:
        """Digests of the layers that an archive need not have, once all that is coming is whole: none where it went
        wrong.

        containerd says nothing while it unpacks, but when that fails. A graph driver says how far it is, and of a layer
        that fails nothing as long as another one comes.
        """
        if self._leaving is not None:
            self._leaving.cancel()
        while self._ended is None and not self._is_filled:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._containerd_store and not self._owes else SILENCE):
                    await self._changed.wait()
            except TimeoutError:
                self._leave("the Engine does nothing")
        if self._is_filled:
            return frozenset(self._layers)
        return frozenset(self._given if self._ended else ())

    async def name_image(self) -> bool:
        """Give the image its name, where the Engine's pull has made that very image; whether it has.

        Raises EngineError.
        """
        if not self._containerd_store or not self._ended or self._image.reference.digest is not None:
            return False
        found = await find_image(self._engine, self._name)
        if found is None or found.id != self._image.id:
            return False
        await self._engine.tag_image(self._name, self._image.reference.familiar())
        return True

    @property
    def _is_filled(self) -> bool:
        """Whether the Engine holds all layers, and waits for the one that never comes."""
        is_waiting = self._ended is None and not self._containerd_store
        return is_waiting and self._there >= Counter(map(short_id, self._layers))

    @property
    def _owes(self) -> bool:
        """Whether there are layers that it has not taken."""
        return any(digest not in self._given and not self._there[short_id(digest)] for digest in self._coming)

    async def _pull(self) -> None:
        is_well = False
        try:
            platform = self._image.platform if self._containerd_store else ""
            async for progress in self._engine.pull_image(self._name, platform=platform, login=self._login):
                if progress.status.startswith(RETRIES):
                    self._leave(f"layer {progress.layer}: {progress.status}")
                if progress.status in _HAS:
                    self._there[progress.layer] += 1
                if progress.status != "Downloading":  # which may be for somebody else, from elsewhere
                    self._changed.set()
            is_well = True
        except EngineError as error:
            log.debug("%s: %s", self._name, error)
        finally:
            self._ended = is_well
            self._changed.set()

    def _leave(self, why: str) -> None:
        log.debug("%s: %s", self._name, why)
        if self._pulling is not None and not self._pulling.done():
            self._ended = False
            self._pulling.cancel()

    def _watch_disk(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (free := shutil.disk_usage(self._disk.root).free) > self._disk.least:
                if self._stop.wait(_LOOK_AGAIN):
                    return
            why = f"{free} bytes are free"
        except OSError as error:
            why = str(error)
        loop.call_soon_threadsafe(self._leave, why)

    async def answer(self, request: Request) -> Response:
        """As distribution's `spec/api.md` has it. Raises HttpError."""
        secret = b64encode(f"{self._login['username']}:{self._login['password']}".encode())
        if not secrets.compare_digest(request.headers.get("Authorization").encode(), b"Basic " + secret):
            return Response(b"{}", 401, headers=(("WWW-Authenticate", 'Basic realm="dom0"'), *_VERSION))
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, "Method Not Allowed")
        if request.parts == ("", "v2", ""):
            return Response(b"{}", headers=_VERSION)
        _, _, name, kind, wanted = request.parts if len(request.parts) == 5 else ("",) * 5
        if name != LOADED or kind not in ("manifests", "blobs"):
            raise HttpError(404, "Not Found")
        if kind == "manifests":
            by_digest = {digest_of(raw): (raw, kind) for raw, kind in self._manifests}
            raw, kind = by_digest.get(wanted, self._manifests[0])
            return Response(raw, content_type=kind, headers=(("Docker-Content-Digest", digest_of(raw)), *_VERSION))
        if wanted == self._config_digest:
            return Response(self._config, content_type=BLOB_TYPE)
        layer = _NEVER if wanted == _NEVER.digest else self._coming.get(wanted)
        if layer is None or self._stop.is_set():  # it seemed to have it
            self._leave(f"{wanted[:19]} does not come")
            raise HttpError(404, "Not Found")
        headers = (("Content-Length", str(layer.size)), *_VERSION)
        if request.method == "HEAD":
            return Response(nothing(), content_type=BLOB_TYPE, headers=headers)
        return Response(content_type=BLOB_TYPE, headers=headers, closes=True, takes=partial(self._give, layer))

    def _give(self, layer: Descriptor, channel: Channel) -> None:
        """Past the event loop, which is busy with what comes."""
        loop, (_, (_, writer)) = asyncio.get_running_loop(), channel.leave()
        try:
            target = writer.get_extra_info("socket").dup()
        except OSError as error:
            self._leave(str(error))
            writer.close()
            return
        target.settimeout(MOST_HELD)
        self._targets.add(target)

        def give() -> None:
            try:
                for piece in self._pieces(layer):
                    try:
                        target.sendall(piece)
                    except OSError:  # the Engine wants no more of it
                        return
                    loop.call_soon_threadsafe(self._changed.set)
            except OSError as error:
                loop.call_soon_threadsafe(self._leave, str(error))
            else:
                loop.call_soon_threadsafe(self._note_given, layer)

        def end(_: object) -> None:
            self._targets.remove(target)
            target.close()
            writer.close()

        loop.run_in_executor(self._threads, give).add_done_callback(end)

    def _pieces(self, layer: Descriptor) -> Iterator[bytes]:
        """While it comes. Raises OSError."""
        left = layer.size
        while left:
            data = self._depot.read(layer.digest, layer.size - left, min(_PIECE, left))
            left -= len(data)
            if data:
                yield data
            elif self._stop.wait(_LOOK_AGAIN):
                raise InterruptedError("the pull has ended")

    def _note_given(self, layer: Descriptor) -> None:
        self._given.add(layer.digest)
        self._changed.set()


def _with_one_more(image: NamedImage, diff_ids: Sequence[str]) -> tuple[bytes, bytes]:
    """Manifest and config of an image that has the same layers, and `_NEVER` on them."""
    of = image.manifest
    rootfs = {"type": "layers", "diff_ids": [*diff_ids, _NEVER.digest]}
    config = msgspec.json.encode({"os": "linux", "architecture": "", "config": {}, "rootfs": rootfs})
    layers = [*of.layers, replace(_NEVER, media_type=of.layers[-1].media_type)]
    manifest = {
        "schemaVersion": 2,
        "mediaType": of.media_type,
        "config": _written(replace(of.config, digest=digest_of(config), size=len(config))),
        "layers": [_written(layer) for layer in layers],
    }
    return msgspec.json.encode(manifest), config


def _written(descriptor: Descriptor) -> dict[str, str | int]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
