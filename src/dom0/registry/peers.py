"""Other machines of one owner, which are asked for blobs before a registry is, or what stands in its place. None is
trusted: what comes is checked by its digest, and a peer whose bytes were wrong is asked no more.

Theory of operation: each looks what the others have of a blob before every request. Who has the next bytes gives them,
also of a blob that still comes. Where nobody has them, one asks the registry: of those that do so already, else of
those that want the blob, the one with the lowest hash of machine and digest; all that look at the same time find the
same one. The others wait for its bytes. One that brings nothing for a while is waited for no longer: then the next one
asks, a little at a time, until the first goes on.

Whoever knows the digests of all chunks of a blob, finds out at the end of a chunk that it is wrong. It is fetched again
with the next check of the whole blob, and nothing else is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from dom0.errors import NoRange, Temporary
from dom0.http.channel import READ_AHEAD, Malformed, Streams
from dom0.http.client import Answer, Client
from dom0.registry.depot import Depot
from dom0.registry.fetch import BlobSource
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import MOST_BYTES, Descriptor, ImageManifest, Index, digest_of, naming, parse_manifest
from dom0.registry.recent import remember
from dom0.registry.reference import Reference
from dom0.registry.serve import Shared, node_of

if TYPE_CHECKING:
    from dom0.registry.mirrors import Mirrored

ANSWER = 3.0  # seconds for a connection, and for each piece of an answer
SLOWEST = 16 << 10  # bytes a second that a peer gives, after the first ANSWER
LEFT_OUT = 60.0  # seconds that one which failed is not asked; twice as many each time
LONGEST_LEFT_OUT = 3600.0
MOST_SHORT = 3  # answers in a row; where it puts parts of a blob together one may be
SOON = 4.0  # seconds: one that is left out for no longer is waited for
LOOK_AGAIN = 0.1  # seconds, while another one asks the registry
IDLE = 10.0  # seconds after which one that brings nothing is not waited for
LONGEST_WAIT = 60.0  # seconds after which one that gives nothing is not waited for, however much it says to have
_BETWEEN_LOOKS = 64 << 10  # bytes that are asked of the registry where another one may do so
_MOST_AT_ONCE = 4 << 20  # bytes of one answer
_MOST_SAID = 4 << 10
_SAYS_WHY = 4.0  # seconds; before the fetcher loses patience
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")


_NOTHING = Shared("left", None, 0, 0)


class PeerFailed(Exception):
    """It does not give what it should."""


class Peer:
    """What `dom0 image serve` gives at `host:port`. `connect`: how it is reached, if not by TCP alone; `authorize`:
    what it has to be told for a blob, by its digest; `left_out`: seconds that it is not asked when it failed first.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[], Awaitable[Streams]] | None = None,
        authorize: Callable[[str], Mapping[str, str]] = lambda _digest: {},
        left_out: float = LEFT_OUT,
    ) -> None:
        self.address = address
        self._client = Client(connect or self._connected, address)
        self._authorize = authorize
        self._left_out = left_out
        self._failures = 0
        self._short = 0  # answers in a row with fewer bytes than it had said it has
        self._left_out_until = self._pause = 0.0
        self._progress: dict[str, tuple[int, float]] = {}  # by digest: bytes that it had, since when
        self._gave: dict[str, float] = {}  # by digest: when it gave something of it last, or was asked first

    @property
    def is_asked(self) -> bool:
        return time.monotonic() >= self._left_out_until

    @property
    def is_back_soon(self) -> bool:
        return self._pause <= SOON and not self.is_asked

    def leave_out(self, *, for_good: bool = False) -> None:
        if for_good:
            self._left_out_until = self._pause = float("inf")
        elif self.is_asked:  # each worker may find it out
            self._pause = min(LONGEST_LEFT_OUT, self._left_out * 2.0 ** min(self._failures, 10))
            self._left_out_until = time.monotonic() + self._pause
            self._failures += 1

    async def close(self) -> None:
        await self._client.close()

    async def share(self, digest: str, at: int) -> Shared | None:
        """None: it has nothing of it. Raises PeerFailed."""
        body = await self._document(f"/blobs/{digest}/from/{at}", _MOST_SAID, self._authorize(digest))
        if body is None:
            return None
        try:
            return msgspec.json.decode(body, type=Shared)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PeerFailed from error

    async def manifest(self, digest: str) -> bytes | None:
        """None: it has none. Raises PeerFailed."""
        raw = await self._document(f"/manifests/{digest}", MOST_BYTES)
        if raw is not None and digest_of(raw) != digest:
            raise PeerFailed
        return raw

    async def blob(self, descriptor: Descriptor, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Bytes from `start` on, at most to `stop`, as many as it has. Raises PeerFailed, also after them."""
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        with _as_failure():
            wanted = {"Range": f"bytes={start}-{stop - 1}", **self._authorize(descriptor.digest)}
            async with self._ask(f"/blobs/{descriptor.digest}", wanted) as answer:
                found = _RANGE.fullmatch(answer.headers.get("Content-Range")) if answer.status == 206 else None
                first, last, size = map(int, found.groups()) if found else (-1, -1, -1)
                if first != start or not start <= last < stop or size != descriptor.size:
                    raise PeerFailed
                missing, waited, chunks = last + 1 - start, 0.0, answer.chunks()
                while chunk := await _next(chunks):
                    waited += clock() - asked_at
                    missing -= len(chunk)
                    if missing < 0 or waited > ANSWER + (last + 1 - start - missing) / SLOWEST:
                        raise PeerFailed
                    remember(self._gave, descriptor.digest, time.monotonic())
                    yield chunk  # for as long as it takes
                    asked_at = clock()
            self._short = 0 if last + 1 == stop else self._short + 1
            if missing or self._short > MOST_SHORT:
                raise PeerFailed
            if not self._short:
                self._failures = 0

    def is_waited_for(self, digest: str, have: int) -> bool:
        """Whether it has more of a blob than some time ago, or we have not looked for that long.

        No peer can claim for ever to have more.
        """
        now = time.monotonic()
        gave = self._gave.get(digest, now)
        remember(self._gave, digest, gave)
        if now - gave >= LONGEST_WAIT:
            return False
        before, since = self._progress.get(digest, (have, now))
        has_more = have > before
        remember(self._progress, digest, (have, now) if has_more else (before, since))
        return has_more or now - since < IDLE

    async def _document(self, target: str, most: int, headers: Mapping[str, str] = {}) -> bytes | None:
        with _as_failure():
            async with self._ask(target, headers) as answer:
                body, chunks = bytearray(), answer.chunks()
                while chunk := await _next(chunks):
                    body += chunk
                    if len(body) > most:
                        raise PeerFailed
                if answer.status not in (200, 404):
                    raise PeerFailed
                return bytes(body) if answer.status == 200 else None

    @asynccontextmanager
    async def _ask(self, target: str, headers: Mapping[str, str] = {}) -> AsyncIterator[Answer]:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(ANSWER):
                answer = await stack.enter_async_context(self._client.ask("GET", target, headers=headers))
            yield answer

    async def _connected(self) -> Streams:
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port), limit=READ_AHEAD)


class Upstream(BlobSource, Protocol):
    """What is behind peers, as a rule a registry."""

    def doubt(self, descriptor: Descriptor, /) -> Sequence[tuple[int, int]]:
        """As of `fetch`."""


FindChunks = Callable[[Descriptor], Awaitable[bytes]]
"""SHA-256 of each CHUNK of a blob, one after the other, as somebody says who is believed; b"": not known."""


async def _no_chunks(_descriptor: Descriptor) -> bytes:
    return b""


class PeeredBlobs:
    """Blobs of `upstream`, which peers are asked for first. `depot`: what is fetched into.

    `from_peers`: bytes that came from them.
    """

    def __init__(
        self, upstream: Upstream, peers: Sequence[Peer], depot: Depot, find_chunks: FindChunks = _no_chunks
    ) -> None:
        self._find_chunks = find_chunks
        self.from_peers = 0
        self._upstream = upstream
        self._peers = peers
        self._node = node_of(depot)
        self._depot = depot
        self._entire: dict[str, None] = {}  # which the registry has as a whole only
        self._given: dict[str, list[tuple[Peer, int, int]]] = {}  # by digest: whose bytes are taken, unchecked
        self._wrong: dict[str, list[tuple[int, int]]] = {}  # by digest: chunks that are

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `BlobSource` has it."""
        if descriptor.digest in self._entire:
            async with self._upstream.blob(repository, descriptor, start, stop) as pieces:
                yield pieces
            return
        async with aclosing(self._pieces(repository, descriptor, start, stop)) as pieces:
            yield pieces

    def doubt(self, descriptor: Descriptor, /) -> Sequence[tuple[int, int]]:
        """What came is not what its digest says. Returns the chunks that are known for that; else the stretches that
        peers gave, who are asked no more.
        """
        if wrong := self._wrong.pop(descriptor.digest, []):
            return wrong
        given = self._given.pop(descriptor.digest, [])
        for peer, _, _ in given:
            peer.leave_out(for_good=True)
        if not given:
            self._upstream.doubt(descriptor)
        return [(start, stop) for _, start, stop in given]

    async def _pieces(self, repository: str, descriptor: Descriptor, start: int, stop: int) -> AsyncGenerator[bytes]:
        digest, at, waited = descriptor.digest, start, 0.0
        while at < stop:
            peer, end = await self._choose(descriptor, at, stop)
            if peer is None:
                await asyncio.to_thread(self._depot.claim, digest, upstream=end > at)
            if peer is not None:
                async with aclosing(self._from_peer(peer, descriptor, at, end)) as pieces:
                    async for data in pieces:
                        at, waited = at + len(data), 0.0
                        yield data
            elif end > at:
                async with aclosing(self._from_registry(repository, descriptor, at, end)) as pieces:
                    async for data in pieces:
                        at += len(data)
                        yield data
            elif waited < _SAYS_WHY:
                await asyncio.sleep(LOOK_AGAIN)
                waited += LOOK_AGAIN
            else:
                raise Temporary(f"{repository}: a peer fetches {digest[:19]}, and has nothing more of it yet")

    async def _choose(self, descriptor: Descriptor, at: int, stop: int) -> tuple[Peer | None, int]:
        """Who gives the bytes from `at` on, and up to which at once. None: the registry; `at`: nobody yet."""
        if not self._peers:
            return None, stop
        digest, has_claimed = descriptor.digest, self._depot.has_claimed(descriptor.digest)
        found = await self._look(descriptor, at)
        if await self._find_chunks(descriptor):
            found = [
                (peer, replace(share, ready=_to_check(at, min(share.ready, _MOST_AT_ONCE), stop)))
                for peer, share in found
            ]
        peer, share = max(found, key=lambda each: (each[1].coming == "whole", each[1].ready), default=(None, _NOTHING))
        if peer is not None and share.ready > 0:
            return peer, min(stop, at + share.ready, at + _MOST_AT_ONCE)
        there = [(share, peer.is_waited_for(digest, share.have)) for peer, share in found]
        wanting = {share.node for share, is_waited_for in there if is_waited_for and share.coming != "left"}
        asking = {share.node for share, is_waited_for in there if is_waited_for and share.coming == "upstream"}
        if self._depot.has_claimed(digest):  # by now
            asking.add(self._node)
        # Rendezvous hashing: the lowest one asks the registry.
        chosen = min(asking or {*wanting, self._node}, key=lambda node: sha256(f"{node} {digest}".encode()).digest())
        if self._node != chosen or any(peer.is_back_soon for peer in self._peers):
            return None, at
        # Who has seen nobody after others could see its claim asks for all of it: only one can. Where there is another,
        # that was given up or has begun at the same moment, the next look may show that it goes on.
        is_alone = has_claimed and not any(share.coming == "upstream" for share, _ in there)
        return None, stop if is_alone else min(stop, at + _BETWEEN_LOOKS)

    async def _look(self, descriptor: Descriptor, at: int) -> list[tuple[Peer, Shared]]:
        async def ask(peer: Peer) -> tuple[Peer, Shared] | None:
            try:
                found = await peer.share(descriptor.digest, at)
            except PeerFailed:
                peer.leave_out()
                return None
            if found is not None and found.node == self._node:
                peer.leave_out(for_good=True)
                return None
            return (peer, found) if found is not None and found.size in (None, descriptor.size) else None

        return [each for each in await asyncio.gather(*map(ask, self._asked_peers())) if each is not None]

    def _asked_peers(self) -> list[Peer]:
        return [peer for peer in self._peers if peer.is_asked]

    async def _from_peer(self, peer: Peer, descriptor: Descriptor, start: int, stop: int) -> AsyncGenerator[bytes]:
        """Ends where the peer fails."""
        check = _Check(await self._find_chunks(descriptor), start)
        try:
            async with aclosing(peer.blob(descriptor, start, stop)) as pieces:
                async for data in pieces:
                    at, wrong = check.at, check.find_wrong(data, descriptor.size)
                    if wrong:
                        remember(self._wrong, descriptor.digest, [*self._wrong.get(descriptor.digest, ()), wrong])
                        peer.leave_out(for_good=True)
                    self.from_peers += check.at - at
                    yield data[: check.at - at]  # also where it is wrong: it takes its place until all is checked
                    if wrong:
                        return
        except PeerFailed:
            peer.leave_out()
        finally:
            for since, at in check.unchecked:
                given = self._given.get(descriptor.digest, [])
                goes_on = bool(given) and given[-1][0] is peer and given[-1][2] == since
                given.append((peer, given.pop()[1] if goes_on else since, at))
                remember(self._given, descriptor.digest, given)

    async def _from_registry(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncGenerator[bytes]:
        try:
            async with self._upstream.blob(repository, descriptor, start, stop) as pieces:
                async for data in pieces:
                    yield data
        except NoRange:
            remember(self._entire, descriptor.digest, None)
            raise


class Peered(PeeredBlobs):
    """A registry behind the peers at `addresses`, asked like `Mirrored`."""

    def __init__(self, registry: Mirrored, addresses: Sequence[str], depot: Depot) -> None:
        super().__init__(registry, [Peer(address) for address in dict.fromkeys(addresses)], depot)
        self._registry = registry

    @property
    def is_anonymous(self) -> bool:
        return self._registry.is_anonymous

    async def close(self) -> None:
        for peer in self._peers:
            await peer.close()
        await self._registry.close()

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `Registry.blob`. Peers are asked for one that is being fetched, whose `stop` is said."""
        source = self._registry.blob(repository, descriptor, start) if stop is None else None
        async with source or super().blob(repository, descriptor, start, stop or 0) as pieces:
            yield pieces

    async def manifest(self, reference: Reference) -> tuple[bytes, str, str]:
        return await self._registry.manifest(reference)

    async def image(self, reference: Reference) -> ImageManifest | Index:
        """What a tag names only the registry says."""
        for peer in self._asked_peers() if reference.digest else ():
            try:
                raw = await peer.manifest(reference.digest or "")
            except PeerFailed:
                peer.leave_out()
                continue
            if raw is not None:
                with naming(reference):
                    return parse_manifest(raw, "")
        return await self._registry.image(reference)


def _to_check(at: int, ready: int, stop: int) -> int:
    """How much of that is whole chunks."""
    end = min(at + ready, stop)
    return (end if end == stop else max(at, end // CHUNK * CHUNK)) - at


class _Check:
    """Of what comes from `at` on, by the digests of whole `chunks`. `unchecked`: what they say nothing about."""

    def __init__(self, chunks: bytes, at: int) -> None:
        self.at = at
        self._chunks = chunks
        self._passed: list[tuple[int, int]] = []
        self._since = at  # what came of the chunk that comes
        self._hash = sha256()

    @property
    def unchecked(self) -> list[tuple[int, int]]:
        return [*self._passed, *([(self._since, self.at)] if self.at > self._since else ())]

    def find_wrong(self, data: bytes, size: int) -> tuple[int, int] | None:
        """The chunk of the blob that is, now that `data` has come; nothing behind it has been looked at."""
        if not self._chunks:
            self.at += len(data)
            return None
        while data:
            number = self.at // CHUNK
            start, stop = number * CHUNK, min((number + 1) * CHUNK, size)
            piece, data = data[: stop - self.at], data[stop - self.at :]
            self._hash.update(piece)
            self.at += len(piece)
            if self.at < stop:
                break
            since, found, self._since, self._hash = self._since, self._hash.digest(), stop, sha256()
            if since != start:
                self._passed.append((since, stop))
            elif found != self._chunks[32 * number : 32 * number + 32]:
                return start, stop
        return None


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Nothing at the end."""
    async with asyncio.timeout(ANSWER):
        return await anext(chunks, b"")


@contextmanager
def _as_failure() -> Iterator[None]:
    try:
        yield
    except (OSError, Malformed, UnicodeError) as error:
        raise PeerFailed from error
