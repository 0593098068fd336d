"""A mirror of docker.io for the Engine of this machine: what it pulls comes through a depot, over an unreliable
line, and is passed on while it arrives.

Manifests are asked of the registry each time; where it does not answer, the one that a tag named last is given. Blobs
are fetched as a pull does it, as long as somebody waits for them. Nobody's login is used: what needs one is not there,
and the Engine asks the registry itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from dom0.durable import write_atomic
from dom0.errors import Dom0Error, Final, Temporary, UsageError
from dom0.http.channel import nothing
from dom0.http.server import HttpError, Request, Response
from dom0.registry.client import Registry
from dom0.registry.depot import Depot, Need
from dom0.registry.fetch import fetch
from dom0.registry.manifest import MOST_BYTES, Descriptor, Index, parse_manifest
from dom0.registry.mirrors import Mirrored
from dom0.registry.patience import pause
from dom0.registry.peers import Peered
from dom0.registry.recent import remember
from dom0.registry.reference import DEFAULT_REGISTRY, Reference, parse
from dom0.registry.serve import BLOB_TYPE, PIECE, RANGE
from dom0.registry.shared import read, share

MOST_WAITED = 30.0  # seconds for a manifest
BEGINS_WITHIN = 10.0  # seconds in which a blob that is not to be had is refused, and not cut off
LINGER = 30.0  # seconds that a fetch goes on without anybody who waits: an Engine asks again
_ANSWER = 10.0  # seconds for one try
_LOOK_AGAIN = 0.1  # seconds
_MOST_SIZES = 1 << 16  # blobs whose sizes are remembered
_VERSION = (("Docker-Distribution-Api-Version", "registry/2.0"),)

log = logging.getLogger(__name__)


@asynccontextmanager
async def pull_through(
    depot: Depot, peers: Sequence[str] = (), *, registry: Registry | None = None
) -> AsyncIterator[PullThrough]:
    """`registry`: another one than docker.io, which has no login."""
    upstream = Peered(Mirrored([registry or Registry(DEFAULT_REGISTRY)]), peers, depot)
    made = PullThrough(depot, upstream)
    try:
        await asyncio.to_thread(made.remember_sizes)
        yield made
    finally:
        await made.close()


class PullThrough:
    """What is under `/v2/`, as distribution's `spec/api.md` has it."""

    def __init__(self, depot: Depot, registry: Peered) -> None:
        self._depot = depot
        self._registry = registry
        self._sizes: dict[str, int] = {}  # of blobs, as manifests say
        self._coming: dict[str, _Coming] = {}
        self._given = 0  # answers with a blob that are under way

    async def close(self) -> None:
        for coming in tuple(self._coming.values()):
            await coming.end()
        await self._registry.close()

    def remember_sizes(self) -> None:
        """Those that manifests in the depot say, for an Engine that has asked for them before we were started."""
        for blob in self._depot.blobs():
            if blob.is_whole and blob.have <= MOST_BYTES:
                raw = read(self._depot, blob.digest, 0, blob.have)
                if raw.startswith(b"{"):
                    self._remember(raw, "")

    async def answer(self, request: Request) -> Response:
        """Raises HttpError."""
        if request.headers.get("User-Agent") == "dom0":  # a pull into the same depot would wait for itself
            raise HttpError(404, "dom0 asks the registry itself")
        if request.method not in ("GET", "HEAD"):
            raise HttpError(405, "Method Not Allowed")
        if request.parts == ("", "v2", ""):
            return Response(b"{}", headers=_VERSION)
        _, _, *name, kind, wanted = request.parts if len(request.parts) > 4 else ("",) * 5
        reference = _reference(name, wanted, request.query.get("ns", DEFAULT_REGISTRY))
        if kind == "manifests":
            return await self._manifest(reference)
        if kind == "blobs" and reference.digest is not None:
            return await self._blob(request, reference.repository, reference.digest)
        raise HttpError(404, "Not Found")

    async def _manifest(self, reference: Reference) -> Response:
        raw = self._known(reference) if reference.digest else None
        if raw is None:
            try:
                raw, kind, digest = await _patiently(partial(self._registry.manifest, reference))
            except Final as error:
                raise HttpError(404, error.message) from error
            except Temporary as error:
                raw = self._known(reference)
                if raw is None:
                    raise HttpError(503, error.message) from error
                log.warning("%s: given as it was known last: %s", reference.familiar(), error.message)
            else:
                if self._remember(raw, kind):
                    await asyncio.to_thread(self._keep, reference, raw, digest)
                return _as_manifest(raw, kind, digest)
        found = parse_manifest(raw, "")
        self._remember(raw, "")
        return _as_manifest(raw, found.media_type, found.digest)

    def _keep(self, reference: Reference, raw: bytes, digest: str) -> None:
        try:
            self._depot.keep(raw, digest, public=self._registry.is_anonymous)
            if reference.digest is None:
                write_atomic(self._tag(reference), digest.encode())
        except Dom0Error as error:
            log.warning("%s", error.message)

    def _known(self, reference: Reference) -> bytes | None:
        """The manifest or index, if there is one in the depot."""
        with contextlib.suppress(OSError, ValueError, Final):
            digest = reference.digest or self._tag(reference).read_text()
            found = share(self._depot, digest, 0)
            if found is not None and found.coming == "whole" and found.have <= MOST_BYTES:
                raw = read(self._depot, digest, 0, found.have)
                if parse_manifest(raw, "").digest == digest:
                    return raw
        return None

    def _tag(self, reference: Reference) -> Path:
        return self._depot.root / "tags" / hashlib.sha256(str(reference).encode()).hexdigest()

    def _remember(self, raw: bytes, kind: str) -> bool:
        """The sizes that it says. False: it is no manifest that is understood."""
        try:
            found = parse_manifest(raw, kind)
        except Final:
            return False
        described = [] if isinstance(found, Index) else [found.config, *found.layers]
        for each in described:
            remember(self._sizes, each.digest, each.size, _MOST_SIZES)
        return True

    async def _blob(self, request: Request, repository: str, digest: str) -> Response:
        size = self._sizes.get(digest)
        if size is None:
            raise HttpError(404, "Not Found")
        descriptor = Descriptor(BLOB_TYPE, digest, size)
        if self._depot.have(digest, size) and share(self._depot, digest, 0) is None:
            raise HttpError(404, "it came with a login")
        asked = request.headers.get("Range")
        wanted = RANGE.fullmatch(asked)
        start, last = (int(wanted[1]), min(int(wanted[2] or size), size - 1)) if wanted else (0, size - 1)
        if (asked and wanted is None) or (wanted and start > last):
            raise HttpError(416, "one range is given, from a first byte on: bytes=0-1023")
        headers = [("Content-Length", str(last + 1 - start)), ("Docker-Content-Digest", digest), *_VERSION]
        if wanted:
            headers.append(("Content-Range", f"bytes {start}-{last}/{size}"))
        if request.method == "HEAD":
            body = nothing()
        else:
            coming = await self._begin(repository, descriptor, start)
            body = self._bytes(request, coming, start, last + 1)
        return Response(body, 206 if wanted else 200, BLOB_TYPE, tuple(headers))

    async def _begin(self, repository: str, descriptor: Descriptor, start: int) -> _Coming:
        """Fetch it, if nobody does. Raises HttpError where that ends at once."""
        coming = self._coming.get(descriptor.digest)
        if coming is None:
            coming = _Coming(descriptor.digest, self._fetch(repository, descriptor), self._coming)
        with coming.waited_for():
            deadline = asyncio.get_running_loop().time() + BEGINS_WITHIN
            while not coming.task.done() and asyncio.get_running_loop().time() < deadline:
                found = await asyncio.to_thread(share, self._depot, descriptor.digest, start)
                if found is not None and found.ready:
                    break
                await asyncio.wait([coming.task], timeout=_LOOK_AGAIN)
        if coming.has_failed:
            raise HttpError(404, "it cannot be fetched")
        return coming

    async def _fetch(self, repository: str, descriptor: Descriptor) -> bool:
        digest = descriptor.digest
        try:
            with self._depot.use([digest]):
                need = descriptor.size - self._depot.have(digest, descriptor.size)
                await asyncio.to_thread(self._depot.make_space, Need(depot=need, engine=0), self._depot.root)
                await fetch(
                    [descriptor],
                    self._registry,
                    self._depot,
                    repository=repository,
                    public=self._registry.is_anonymous,
                    doubt=self._registry.doubt,
                )
        except (Dom0Error, OSError) as error:
            log.warning("%s: %s", digest[:19], error)
            return False
        return True

    def _trim(self) -> None:
        try:
            self._depot.trim()
        except (Dom0Error, OSError) as error:
            log.warning("%s", error)

    async def _bytes(self, request: Request, coming: _Coming, start: int, stop: int) -> AsyncGenerator[bytes]:
        self._given += 1
        try:
            with coming.waited_for():
                while start < stop:
                    is_last = coming.task.done()
                    data = await asyncio.to_thread(read, self._depot, coming.digest, start, min(PIECE, stop - start))
                    if data:
                        yield data
                        start += len(data)
                    elif is_last or request.is_gone:
                        raise ConnectionAbortedError("it does not come any more")
                    else:
                        await asyncio.wait([coming.task], timeout=_LOOK_AGAIN)
        finally:
            self._given -= 1
            if not self._given:  # none of what is being given goes
                await asyncio.to_thread(self._trim)


class _Coming:
    """A blob that is fetched as long as somebody waits for it; the task says whether it came."""

    def __init__(self, digest: str, fetching: Coroutine[None, None, bool], others: dict[str, _Coming]) -> None:
        self.digest = digest
        self.task = asyncio.create_task(fetching)
        self._others = others
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        others[digest] = self
        self.task.add_done_callback(lambda _: others.pop(digest))

    @property
    def has_failed(self) -> bool:
        return self.task.done() and (self.task.cancelled() or not self.task.result())

    @contextlib.contextmanager
    def waited_for(self) -> Iterator[None]:
        self._waiting += 1
        if self._timer is not None:
            self._timer.cancel()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._timer = asyncio.get_running_loop().call_later(LINGER, self.task.cancel)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        if self._timer is not None:
            self._timer.cancel()


def _reference(name: Sequence[str], wanted: str, registry: str) -> Reference:
    """Raises HttpError."""
    by = "@" if ":" in wanted else ":"
    if registry != DEFAULT_REGISTRY or any("/" in part for part in (*name, wanted)):
        raise HttpError(404, "Not Found")
    try:
        return parse(f"{DEFAULT_REGISTRY}/{'/'.join(name)}{by}{wanted}")
    except UsageError:
        raise HttpError(404, "Not Found") from None


async def _patiently(ask: Callable[[], Awaitable[tuple[bytes, str, str]]]) -> tuple[bytes, str, str]:
    """For as long as an Engine may wait. Raises Temporary, Final."""
    clock = asyncio.get_running_loop().time
    began, misses = clock(), 0
    while True:
        try:
            async with asyncio.timeout(_ANSWER):
                return await ask()
        except (Temporary, OSError) as error:
            wait = pause(misses, clock() - began, random.random())  # noqa: S311 -- no secret
            if clock() + wait - began > MOST_WAITED:
                raise Temporary(str(error) or "no answer") from error
        await asyncio.sleep(wait)
        misses += 1


def _as_manifest(raw: bytes, kind: str, digest: str) -> Response:
    return Response(raw, content_type=kind, headers=(("Docker-Content-Digest", digest), *_VERSION))
