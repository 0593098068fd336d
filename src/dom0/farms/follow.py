"""A node's work for its farm: report to the server, take its order, fetch the revision, and have it brought up by the
agent, which is handed in.

Theory of operation: one loop asks the server, whose answer waits until there is something new. Another one works on the
newest order. What is known is on the disk before anything is done about it: whatever is killed, the next process goes
on from there. Without a server nothing changes, and all that the node runs goes on.

Blobs come from other nodes before the server is asked (`peers`), and what came is given to them: it stays in the depot,
within its limit, unless that is in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from dom0.durable import Unwritable, write_atomic
from dom0.engine.protocol import Engine
from dom0.errors import Busy, Dom0Error, EngineUnreachable, Final, Temporary
from dom0.farms import base_os, calls, join, pin, reboot, services
from dom0.farms.base_os import Host, OsNow
from dom0.farms.float_news import FloatNews
from dom0.farms.join import Membership
from dom0.farms.peers import PeerNodes, giving, is_in_memory
from dom0.farms.revisions import (
    MOST_OS_REASON,
    MOST_REASON,
    SLOTS,
    BaseOs,
    Blob,
    FarmImage,
    FollowRequest,
    Gives,
    NodeReport,
    Order,
    Peers,
    RoleContent,
    RoleState,
)
from dom0.farms.wireguard import Tunnel
from dom0.host.update_file import UpdateFile
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.images import private
from dom0.images.loading import NamedImage, remove_name
from dom0.images.pull import KEPT, bring
from dom0.names import pull_directory, short_id
from dom0.printable import printable
from dom0.registry import reference
from dom0.registry.depot import Depot, Need
from dom0.registry.fetch import fetch
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import MOST_BYTES, Descriptor, Index, digest_of, parse_manifest
from dom0.registry.progress import Meter
from dom0.registry.recent import remember
from dom0.registry.reference import DEFAULT_REGISTRY, Reference

AGAIN = 2.0  # seconds until what has failed is tried again, growing
LONGEST_PAUSE = 60.0
ANSWER_WITHIN = 90.0  # seconds; an answer waits for less than one minute
MOST_ANSWER = 1 << 20  # bytes
WELL_FOR = 30.0  # seconds, before who has rebooted gives its lock back: what keeps exiting is well at times
CHUNKS_WITHIN = 4.0  # seconds that the server has to say what chunks of a blob are; before the fetcher loses patience
FILE_WITHIN = 60.0  # seconds for a config or secret, of at most 1 MB
CHUNKS_AGAIN = 10.0  # seconds until it is asked again
FILE = "farm-role.json"
NAME = "dom0-farm"  # what images are called that no project names, each with a tag of its ID

log = logging.getLogger(__name__)


class Runner(Protocol):
    """Whoever brings up what a role says."""

    @property
    def generation(self) -> int:
        """Number of the last one."""

    @property
    def is_well(self) -> bool:
        """Whether all runs as it should."""

    async def run(self, image: str, images: Mapping[str, str], *, after: int) -> str:
        """Return how the dom0 image with that ID has ended: "" if its generation is good, else why it is not.

        `images`: IDs of what its services refer to; all are on this machine. `after`: number of the last generation
        when this was begun. Raises Busy where it cannot be now, Dom0Error.
        """

    async def find_end(self, image: str, *, after: int) -> str:
        """Return how what was begun has ended, as `run` does, as soon as it has; nothing is begun."""


class StoredReport(msgspec.Struct, frozen=True, kw_only=True):
    """On the disk of a node. `after`: number of the last generation when it began to try the content of the report;
    `image`: ID of its dom0 image.
    """

    report: NodeReport = NodeReport()
    after: int = 0
    image: str = ""


async def follow(state: Path, engine: Engine, runner: Runner, host: Host, neighbours: services.Neighbours) -> None:
    """For as long as this machine is in a farm, and while it is in none."""
    follower = _Follower(state, engine, runner, host, neighbours)
    while True:
        try:
            membership = join.read(state)
            if membership is not None and membership.name:
                await follower.serve(membership)
        except (Dom0Error, OSError) as error:  # of the disk, or another server
            follower.note(str(error))
        await asyncio.sleep(AGAIN)


class _NoNode(Exception):
    """The server says that this machine is none."""


class _Follower:
    def __init__(
        self, state: Path, engine: Engine, runner: Runner, host: Host, neighbours: services.Neighbours
    ) -> None:
        self._state = state
        self._neighbours = neighbours
        self._engine = engine
        self._runner = runner
        self._host = host
        self._is_os_known = False
        self._kept = _taken_up(state)
        self._order: Order | None = None
        self._ordered = asyncio.Event()
        self._reported = asyncio.Event()
        self._floats = FloatNews()
        self._said = ""
        self._tunnel = Tunnel(state)
        self._gives: Gives | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def _report(self) -> NodeReport:
        return self._kept.report

    def note(self, what: str) -> None:
        """In the log, once."""
        if what and what != self._said:
            log.warning("farm: %s", what)
        self._said = what

    async def serve(self, membership: Membership) -> None:
        """Until another farm is joined, the server has another address, or it says that we are no node, and then until
        we are. Raises Dom0Error, OSError of the disk.
        """
        server = pin.parse(f"{membership.address}:{membership.fingerprint}")
        client = join.ServerClient(self._state, server)
        origin = _FarmServer(client, membership.secret)
        self._order = None  # what was not done before is told again

        def is_asked() -> bool | None:
            return self._order.services if self._order else None

        async with AsyncExitStack() as stack:
            self._gives = await self._begin_giving(stack, origin)
            working = asyncio.create_task(self._work(origin))
            floating = asyncio.create_task(self._float(origin, client, membership.secret))
            finding = asyncio.create_task(
                services.follow(self._neighbours, is_asked, client, membership.secret, self._tunnel)
            )
            try:
                await self._listen(client, membership, working)
            except _NoNode:
                working.cancel()
                finding.cancel()
                await asyncio.gather(finding, return_exceptions=True)
                log.warning("farm: this machine is no node of %s any more; what it runs goes on", membership.farm)
                with contextlib.suppress(Dom0Error):
                    await self._tunnel.close()
                await join.join(self._state, server, membership, log.info, patient=True)
            finally:
                ending = [working, floating, finding, *self._answering]
                for task in ending:
                    task.cancel()
                await asyncio.gather(*ending, return_exceptions=True)
                await origin.close()

    async def _float(self, origin: _FarmServer, client: Client, secret: str) -> None:
        """As soon as something does."""
        while not self._floats.revision:
            await self._floats.rest(None, None)
        from dom0.farms.float_follow import float_along  # with all of Swarm mode, which few farms have

        source = _FloatSource(self, origin)
        await float_along(self._floats, self._state, self._engine, client, secret, source)

    async def _begin_giving(self, stack: AsyncExitStack, origin: _FarmServer) -> Gives | None:
        """Blobs to other nodes. Where that cannot be, they come from the server."""
        try:
            depot = await asyncio.to_thread(Depot, pull_directory(), KEPT)
            return await stack.enter_async_context(giving(self._state, depot, origin.nodes.passes))
        except (Dom0Error, OSError) as error:
            log.warning("farm: nothing is given to other nodes: %s", error)
            return None

    # what the server says

    async def _listen(self, client: Client, membership: Membership, working: asyncio.Task[None]) -> None:
        pause, well_since, clock = AGAIN, 0.0, asyncio.get_running_loop().time
        known = (membership.secret, membership.address)
        while (kept := join.read(self._state)) is not None and (kept.secret, kept.address) == known:
            await self._look_at_os()
            self._reported.clear()
            asking = asyncio.create_task(self._ask(client, membership.secret))
            news = asyncio.create_task(self._reported.wait())
            try:
                await asyncio.wait({asking, news, working}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    working.result()  # a bug
                if not asking.done():
                    continue
                order = asking.result()
            except (OSError, Malformed) as error:
                self.note(f"the server at {membership.address} does not answer: {str(error) or 'nothing came'}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            finally:
                for task in (asking, news):
                    task.cancel()
                await asyncio.gather(asking, news, return_exceptions=True)
            self.note("")
            for call in order.calls:
                answering = asyncio.create_task(calls.answer(membership, call))
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)
            order = replace(order, calls=())
            pause = AGAIN
            well_since = (well_since or clock()) if self._runner.is_well else 0.0
            is_well = well_since > 0 and clock() - well_since >= WELL_FOR
            if is_well and await asyncio.to_thread(reboot.has_rebooted, self._state):
                await reboot.give_back(self._state, client, membership)
            before, self._order = self._order, order
            if before is None or replace(order, services=before.services, told=before.told) != before:
                self._ordered.set()
                self._floats.tell(order.floats)
            if (kept := join.read(self._state)) is not None and kept.secret == membership.secret:
                join.keep(self._state, kept, replace(kept, farm=order.farm, name=order.name, role=order.role))

    async def _ask(self, client: Client, secret: str) -> Order:
        """Raises _NoNode, OSError, Malformed."""
        asked = FollowRequest(report=self._report, told=self._order.digest if self._order else "", gives=self._gives)
        status, said = await join.ask(
            client, "/v1/follow", secret, msgspec.json.encode(asked), within=ANSWER_WITHIN, most=MOST_ANSWER
        )
        if status == 403:
            raise _NoNode
        if status == 204 and self._order is not None:
            return self._order
        try:
            if status == 200:
                return msgspec.json.decode(said, type=Order)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConnectionError("the answer is not one of a farm's server") from error
        raise ConnectionError(f"it answers with {status}")

    # what is done about it

    async def _work(self, origin: _FarmServer) -> None:
        pause = AGAIN
        while True:
            await self._until_ordered(self._ordered.wait())
            order = self._order
            self._ordered.clear()
            if order is None:
                continue
            try:
                await self._obey(origin, order)
                pause = AGAIN
            except (Dom0Error, OSError, ValueError) as error:
                words = error.message if isinstance(error, Dom0Error) else str(error)
                if not isinstance(error, Busy):
                    said = replace(self._report, reason=_clip(words))
                    try:
                        self._keep(said)
                    except Unwritable:  # the server hears it all the same
                        self._kept = replace(self._kept, report=said)
                        self._reported.set()
                self.note(words)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._ordered.wait()
                self._ordered.set()
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _obey(self, origin: _FarmServer, order: Order) -> None:
        """Or until there is another one. Raises Dom0Error, OSError."""
        for content in dict.fromkeys(each.digest for each in (order.fetch, order.run) if each):
            await self._until_ordered(self._fetch(origin, order, content))
            if self._ordered.is_set():
                return
        if self._report.state in (RoleState.NONE, RoleState.GOOD):
            self._keep(replace(self._report, reason=""))  # why it could not be fetched: it could
        if order.run is not None:
            await self._run(origin, order, order.run)
        elif self._report.state is RoleState.TRYING:  # it was called off
            await self._until_ordered(self._end())
        if order.fetch_os and self._report.os != order.fetch_os.version and not self._ordered.is_set():
            await self._until_ordered(self._fetch_os(origin, order.fetch_os))
        is_good = self._report.state is RoleState.GOOD and self._report.os_failed != order.turn
        if order.os and is_good and not self._ordered.is_set():
            await self._until_ordered(self._change_os(origin, order.os, order.turn))

    async def _until_ordered(self, doing: Coroutine[Any, Any, Any]) -> None:
        """Do it, unless there is another order meanwhile. Raises what it does."""
        task, ordered = asyncio.create_task(doing), asyncio.create_task(self._ordered.wait())
        try:
            await asyncio.wait({task, ordered}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for each in (task, ordered):
                each.cancel()
            await asyncio.gather(task, ordered, return_exceptions=True)

    async def _fetch(self, origin: _FarmServer, order: Order, digest: str) -> None:
        """All of that content of the order. Raises Dom0Error, OSError."""
        content = next(each for each in (order.fetch, order.run) if each and each.digest == digest)
        meter, from_nodes = Meter(), 0
        for image in (content.image, *content.images):
            name = Reference(DEFAULT_REGISTRY, f"library/{NAME}", short_id(await self._id(image)), None)
            from_nodes += await self.bring(origin, image, name, meter)
        if self._report.fetched != digest:
            came = f"{meter.received} bytes came, {from_nodes} of them from other nodes"
            log.info("farm: all of revision %d is here: %s", order.revision, came)
            self._keep(replace(self._report, fetched=digest))

    async def bring(self, origin: _FarmServer, image: FarmImage, name: Reference, meter: Meter) -> int:
        """Into this Engine, as `name`; return how many bytes came from other nodes. Raises Dom0Error, OSError."""
        depot = await asyncio.to_thread(Depot, pull_directory(), KEPT)
        await origin.know_nodes()
        blobs = origin.nodes.asked_before(origin, depot, origin.find_chunks)
        await bring(self._engine, depot, await self._named(origin, depot, image, name), blobs, meter=meter)
        if await asyncio.to_thread(is_in_memory, depot.root):  # the Engine has it; a second copy would take memory
            for layer in image.layers:
                await asyncio.to_thread(depot.evict, layer.digest)
        return blobs.from_peers

    async def _named(self, origin: _FarmServer, depot: Depot, image: FarmImage, name: Reference) -> NamedImage:
        documents = [blob for blob in (image.manifest, image.index) if blob is not None]
        if any(blob.size > MOST_BYTES for blob in documents):
            raise Final(f"{image.reference}: manifest: longer than {MOST_BYTES >> 20} MiB")
        raw = [await origin.read(depot, blob) for blob in documents]
        manifest, index = parse_manifest(raw[0], ""), parse_manifest(raw[1], "") if image.index else None
        if isinstance(manifest, Index) or not (index is None or isinstance(index, Index)):
            raise Final(f"{image.reference}: is an image of something else than the farm's server says")
        return NamedImage(name, manifest, index, await self._id(image))

    async def _id(self, image: FarmImage) -> str:
        """On this Engine."""
        in_containerd, elsewhere = image.ids
        return in_containerd if (await self._engine.info()).containerd_store else elsewhere

    async def _run(self, origin: _FarmServer, order: Order, content: RoleContent) -> None:
        """Raises Dom0Error, OSError."""
        before = self._report
        was_tried = before.content == content.digest
        as_ordered = replace(before, content=content.digest, revision=order.revision, turn=order.turn)
        if was_tried and (
            before.state is RoleState.GOOD or (before.state is RoleState.FAILED and before.turn == order.turn)
        ):
            self._keep(as_ordered)
            return
        image = await self._id(content.image)
        trying = replace(as_ordered, state=RoleState.TRYING, reason="")
        if trying != replace(before, reason=""):
            self._keep(trying, after=self._runner.generation, image=image)
        if content.private is not None:
            depot = await asyncio.to_thread(Depot, pull_directory(), KEPT)
            await private.deliver_packed(self._engine, image, await origin.read(depot, content.private))
        images = {each.reference: await self._id(each) for each in content.images}
        self._keep_end(await self._runner.run(image, images, after=self._kept.after))
        if self._report.state is RoleState.GOOD:
            # Images that no generation needs are gone with the names that they have of us.
            for row in await self._engine.images():
                if row.id not in (image, *images.values()) and (name := f"{NAME}:{short_id(row.id)}") in row.tags:
                    await remove_name(self._engine, name)

    async def _look_at_os(self) -> None:
        """Until it has proved itself; nothing else changes it while we run. Raises Unwritable."""
        if self._is_os_known and not self._report.os_trial:
            return
        try:
            now = await self._host.look()
        except Dom0Error as error:
            log.info("farm: the base OS does not say what it is: %s", error.message)
            return
        self._is_os_known = True
        now = now or OsNow(version="", boots="")  # it may have run on this disk before
        self._keep(replace(self._report, os=now.version, boots=now.boots, os_trial=now.is_on_trial))

    async def _fetch_os(self, origin: _FarmServer, os: BaseOs) -> None:
        """Raises Dom0Error, OSError."""
        depot = await asyncio.to_thread(Depot, pull_directory(), KEPT)
        await origin.know_nodes()
        blobs = origin.nodes.asked_before(origin, depot, origin.find_chunks)
        wanted = [Descriptor(media_type="", digest=digest, size=size) for digest, size in os.blobs.items()]
        with depot.use(os.blobs):
            missing = sum(size - depot.have(digest, size) for digest, size in os.blobs.items())
            await asyncio.to_thread(depot.make_space, Need(depot=missing, engine=0), depot.root)
            await fetch(wanted, blobs, depot, repository="the farm's server")
        self._keep(replace(self._report, os_fetched=os.file.digest))

    async def _change_os(self, origin: _FarmServer, os: BaseOs, turn: int) -> None:
        """Raises Busy, EngineUnreachable, Unwritable, OSError; what keeps it from being fetched."""
        depot = await asyncio.to_thread(Depot, pull_directory(), KEPT)
        with depot.use(os.blobs):
            if self._report.boots == SLOTS:
                await self._fetch_os(origin, os)
                await asyncio.to_thread(_check, depot, os.file)  # the slot's sums are made of what is read here
            signature = depot.path(os.signature.digest) if os.signature else None
            update = UpdateFile(f"base OS {os.version}", depot.path(os.file.digest), signature)
            failed, reason = 0, ""
            try:
                await base_os.change(self._state, self._host, os, turn, update, self.note)
            except (Busy, EngineUnreachable):
                raise
            except Dom0Error as error:
                failed, reason = turn, _clip(error.message)[:MOST_OS_REASON]
                self.note(error.message)
        self._keep(replace(self._report, os_failed=failed, os_reason=reason))

    async def _end(self) -> None:
        """Of what nobody wants any more, as far as it was begun: the server waits for it. Raises Unwritable."""
        self._keep_end(await self._runner.find_end(self._kept.image, after=self._kept.after))

    def _keep_end(self, reason: str) -> None:
        """Of what was tried; `reason`: why it has failed, "" where it is good. Raises Unwritable."""
        ended = RoleState.FAILED if reason else RoleState.GOOD
        log.info("farm: revision %d is %s%s", self._report.revision, ended, f": {reason}" if reason else "")
        self._keep(replace(self._report, state=ended, reason=_clip(reason)))

    def _keep(self, report: NodeReport, **begun: int | str) -> None:
        """Raises Unwritable."""
        kept = replace(self._kept, report=report, **begun)
        if kept != self._kept:
            write_atomic(self._state / FILE, msgspec.json.encode(kept))
            self._kept = kept
            self._reported.set()


class _FarmServer:
    """The server, as a place where blobs come from; `nodes`: what it has said of others."""

    def __init__(self, client: Client, secret: str) -> None:
        self.nodes = PeerNodes()
        self._client = client
        self._secret = secret
        self._chunks: dict[str, bytes] = {}  # by digest
        self._asking = asyncio.Lock()
        self._not_before = 0.0  # is the server asked for them, by the loop's time

    async def close(self) -> None:
        await self.nodes.close()
        await self._client.close()

    async def know_nodes(self) -> None:
        """What it says of others now; where it says nothing, what it said last is used."""
        with contextlib.suppress(OSError, Malformed, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            status, said = await join.ask(self._client, "/v1/peers", self._secret, b"{}", most=MOST_ANSWER)
            if status == 200:
                await self.nodes.know(msgspec.json.decode(said, type=Peers))

    async def find_chunks(self, descriptor: Descriptor) -> bytes:
        """Of what is larger than one, as the server says. It may have to read all of the blob first."""
        digest, count, clock = descriptor.digest, -(-descriptor.size // CHUNK), asyncio.get_running_loop().time
        async with self._asking:  # each worker wants to know the same
            if count > 1 and digest not in self._chunks and clock() >= self._not_before:
                self._not_before = clock() + CHUNKS_AGAIN
                with contextlib.suppress(OSError, Malformed, Temporary):
                    async with asyncio.timeout(CHUNKS_WITHIN):
                        remember(self._chunks, digest, await self._ask_chunks(digest, count))
                    self._not_before = 0.0
        return self._chunks.get(digest, b"")

    async def _ask_chunks(self, digest: str, count: int) -> bytes:
        """Raises OSError, Malformed, Temporary."""
        said, headers = bytearray(), {"Authorization": f"Bearer {self._secret}"}
        async with self._client.ask("GET", f"/v1/chunks/{digest}", headers=headers) as answer:
            async for piece in _at_most(answer.chunks(), 32 * count):
                said += piece
            if answer.status != 200 or len(said) != 32 * count:
                raise Temporary(f"the farm's server answers with {answer.status}")
        return bytes(said)

    def doubt(self, _descriptor: Descriptor, /) -> tuple[tuple[int, int], ...]:
        return ()

    @asynccontextmanager
    async def blob(
        self, _repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As `registry.fetch.BlobSource` wants it."""
        headers = {"Authorization": f"Bearer {self._secret}", "Range": f"bytes={start}-{stop - 1}"}
        try:
            async with self._client.ask("GET", f"/v1/blobs/{descriptor.digest}", headers=headers) as answer:
                if answer.status == 403:
                    raise Final(f"{descriptor.digest}: the farm's server says that this is nothing of this node's role")
                expected = f"bytes {start}-{stop - 1}/{descriptor.size}"
                if answer.status != 206 or answer.headers.get("Content-Range") != expected:
                    raise Temporary(f"the farm's server answers with {answer.status}")
                yield _at_most(answer.chunks(), stop - start)
        except Malformed as error:
            raise Temporary(f"the farm's server: {error}") from error

    async def read(self, depot: Depot, blob: Blob) -> bytes:
        """All of a small one. Raises Dom0Error, OSError."""
        with depot.use([blob.digest]):
            descriptor = Descriptor(media_type="", digest=blob.digest, size=blob.size)
            await fetch([descriptor], self, depot, repository="the farm's server")
            raw = await asyncio.to_thread(depot.path(blob.digest).read_bytes)
            if digest_of(raw) != blob.digest:
                raise await asyncio.to_thread(_damaged, depot, blob)
            return raw


class _FloatSource:
    def __init__(self, follower: _Follower, origin: _FarmServer) -> None:
        self._follower = follower
        self._origin = origin

    async def bring(self, image: FarmImage) -> None:
        await self._follower.bring(self._origin, image, reference.parse(image.reference), Meter())

    async def read(self, blob: Blob) -> bytes:
        """Past the depot: it may be a secret, and is in the Swarm then."""
        descriptor = Descriptor(media_type="", digest=blob.digest, size=blob.size)
        async with asyncio.timeout(FILE_WITHIN), self._origin.blob("", descriptor, 0, blob.size) as pieces:
            raw = b"".join([piece async for piece in pieces])
        if digest_of(raw) != blob.digest:
            raise ConnectionError(f"{blob.digest}: has not come as it is")
        return raw


async def _at_most(chunks: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        length -= len(chunk)
        if length < 0:
            raise Temporary("the farm's server sends more than was asked for")
        yield chunk


def _check(depot: Depot, blob: Blob) -> None:
    """Raises ConnectionError where it is not any more what came."""
    with depot.path(blob.digest).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if f"sha256:{found}" != blob.digest:
        raise _damaged(depot, blob)


def _damaged(depot: Depot, blob: Blob) -> ConnectionError:
    """Without it from now on."""
    depot.discard(blob.digest)
    return ConnectionError(f"{blob.digest}: is damaged on this disk; it is fetched again")


def read(state: Path) -> StoredReport:
    """Raises Dom0Error where the file is not what we wrote, OSError."""
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=StoredReport)
    except FileNotFoundError:
        return StoredReport()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Dom0Error(f"{state / FILE}: is damaged: {error}") from error


def _taken_up(state: Path) -> StoredReport:
    try:
        kept = read(state)
    except (OSError, Dom0Error) as error:
        log.warning("%s; this node begins anew", error)
        kept = StoredReport()
    return replace(kept, report=replace(kept.report, os=base_os.version_here()))


def _clip(words: str) -> str:
    return printable(" ".join(words.split()))[:MOST_REASON]
