"""Machines that get the same blobs: over real sockets, from a registry behind a line that counts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from dom0.errors import Final
from dom0.registry import peers, serve
from dom0.registry.client import Registry
from dom0.registry.credentials import Login
from dom0.registry.depot import Depot
from dom0.registry.fetch import Terms, fetch
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import OCI_INDEX, Descriptor, Index, digest_of
from dom0.registry.mirrors import Mirrored
from dom0.registry.peers import Peer, Peered
from dom0.registry.progress import Meter
from dom0.registry.recent import remember
from dom0.registry.reference import parse
from dom0.testing.blob_server import BlobServer, content, describe
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.web_server import Asked, Said, reply, served

BLOBS = [content(size, size) for size in (9 * CHUNK + 17, 5 * CHUNK, 2 * CHUNK + 3, 1000)]
DESCRIPTORS = [describe(blob) for blob in BLOBS]
ALL = sum(map(len, BLOBS))
LARGE = BLOBS[0]
ONE = DESCRIPTORS[:1]
GROWING = itertools.count(1)
INDEX = b'{"schemaVersion": 2, "manifests": []}'


class Reached(Meter):
    """`event` is set when so many bytes have come."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.event = asyncio.Event()
        self._count = count

    def came(self, count: int, now: float) -> None:
        super().came(count, now)
        if self.received >= self._count:
            self.event.set()


class Node:
    """A machine that gives what it has at `address`; `peered` is the registry as it last asked it."""

    def __init__(self, depot: Depot, address: str) -> None:
        self.depot = depot
        self.address = address
        self.peered: Peered

    async def pull(
        self,
        upstream: int,
        others: Sequence[str],
        what: Sequence[Descriptor] = DESCRIPTORS,
        *,
        workers: int = 2,
        rate: float = 0.0,
        meter: Meter | None = None,
    ) -> Meter:
        meter = meter or Meter()
        self.peered = Peered(Mirrored([Registry(f"127.0.0.1:{upstream}")]), others, self.depot)
        try:
            with self.depot.use(each.digest for each in what):
                await fetch(
                    what,
                    self.peered,
                    self.depot,
                    repository="team/app",
                    public=True,
                    meter=meter,
                    terms=Terms(workers=workers, rate=rate),
                    doubt=self.peered.doubt,
                )
        finally:
            await self.peered.close()
        for descriptor in what:
            found = self.depot.find(descriptor.digest, descriptor.size)
            assert found is not None
            assert digest_of(found.read_bytes()) == descriptor.digest
        return meter


@pytest.fixture
async def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Node]]:
    """None is left out because this machine is busy."""
    monkeypatch.setattr(peers, "ANSWER", 60.0)
    monkeypatch.setattr(peers, "IDLE", 60.0)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(120))
        made = []
        for number in range(3):
            depot = Depot(tmp_path / f"depot{number}", 1 << 30)
            listening = socket.create_server(("127.0.0.1", 0))
            await stack.enter_async_context(serve.serve(depot, listening))
            made.append(Node(depot, f"127.0.0.1:{listening.getsockname()[1]}"))
        yield made


@pytest.fixture
async def upstream() -> AsyncIterator[BlobServer]:
    async with BlobServer(BLOBS) as server:
        yield server


def given(server: BlobServer) -> int:
    """Bytes that the registry was asked for."""
    return sum(stop - start for start, stop in server.asked)


async def test_the_second_machine_asks_the_registry_for_nothing(nodes: list[Node], upstream: BlobServer) -> None:
    first, second, _ = nodes
    await first.pull(upstream.port, [])
    upstream.asked.clear()
    meter = await second.pull(upstream.port, [first.address])
    assert given(upstream) == 0
    assert second.peered.from_peers == meter.received == ALL


@pytest.mark.parametrize("what", [DESCRIPTORS, ONE])
async def test_three_at_once_take_hardly_more_than_one(
    nodes: list[Node], upstream: BlobServer, what: list[Descriptor]
) -> None:
    addresses = [node.address for node in nodes]  # each has its own in the list as well
    async with FaultProxy(upstream.port, Faults(rate=8e6, rtt=0.01)) as line:
        await asyncio.gather(*(node.pull(line.port, addresses, what) for node in nodes))
        assert line.sent <= 1.05 * sum(each.size for each in what)


async def test_one_that_comes_later_follows_and_goes_on_alone_when_the_first_one_dies(
    nodes: list[Node], upstream: BlobServer
) -> None:
    first, second, _ = nodes
    async with FaultProxy(upstream.port, Faults(rate=4e6)) as line:
        begun, well_on = Reached(2 * CHUNK), Reached(3 * CHUNK)
        pulling = asyncio.create_task(first.pull(line.port, [], ONE, meter=begun))
        await begun.event.wait()
        following = asyncio.create_task(second.pull(line.port, [first.address], ONE, meter=well_on))
        await well_on.event.wait()
        pulling.cancel()
        await asyncio.wait([pulling])
        await following
        # What the first one had, it still gives. What was on its way when it died came twice.
        assert line.sent <= len(LARGE) + CHUNK
        assert second.peered.from_peers >= 3 * CHUNK


SERVES = """
import asyncio, socket, sys
from pathlib import Path
from dom0.registry import serve
from dom0.registry.depot import Depot

async def main():
    listening = socket.create_server(("127.0.0.1", 0))
    async with serve.serve(Depot(Path(sys.argv[1]), 1 << 30), listening, rate=4 << 20):
        print(listening.getsockname()[1], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_of_a_machine_that_is_killed_while_it_gives_at_most_a_mib_comes_twice(
    nodes: list[Node], upstream: BlobServer
) -> None:
    first, second, _ = nodes
    await first.pull(upstream.port, [], ONE)
    upstream.asked.clear()
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVES, str(first.depot.root), stdout=PIPE)
    assert killed.stdout
    address = f"127.0.0.1:{(await killed.stdout.readline()).decode().strip()}"
    begun = Reached(3 * CHUNK)
    pulling = asyncio.create_task(second.pull(upstream.port, [address], ONE, meter=begun))
    await begun.event.wait()
    killed.kill()
    await killed.wait()
    assert (await pulling).received <= len(LARGE) + CHUNK
    assert 3 * CHUNK <= second.peered.from_peers < len(LARGE)


Answers = Callable[[Asked], Said]


def liar(data: bytes, *, changed: int = 0) -> Answers:
    """Says that it has all of it, with another byte at `changed`."""
    digest = digest_of(data)
    wrong = data[:changed] + bytes([data[changed] ^ 1]) + data[changed + 1 :]

    def answer(asked: Asked) -> Said:
        if asked.path.startswith(f"/blobs/{digest}/from/"):
            ready = len(data) - int(asked.path.rpartition("/")[2])
            return said(coming="whole", size=len(data), have=len(data), ready=ready)
        if asked.path != f"/blobs/{digest}":
            return reply(404)
        first, last = map(int, asked.headers["range"].removeprefix("bytes=").split("-"))
        return reply(206, wrong[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")

    return answer


def said(**share: object) -> bytes:
    import json

    return reply(200, json.dumps({"node": "0" * 32, **share}).encode())


async def test_a_liar_costs_nothing_of_the_line_and_is_asked_no_more(nodes: list[Node], upstream: BlobServer) -> None:
    async with served(liar(LARGE, changed=5 * CHUNK)) as lying:
        await nodes[0].pull(upstream.port, [lying.netloc], ONE)
        assert given(upstream) == len(LARGE)
        count = len(lying.asked)
        await nodes[1].pull(upstream.port, [nodes[0].address, lying.netloc])
        assert len(lying.asked) > count  # by somebody else


async def test_no_login_goes_to_a_peer(nodes: list[Node], upstream: BlobServer) -> None:
    def answer(asked: Asked) -> Said:
        return liar(LARGE)(asked) if "/from/" in asked.path else reply(401, WWW_Authenticate='Basic realm="x"')

    async with served(answer) as peer:
        depot, registry = nodes[0].depot, Registry(f"127.0.0.1:{upstream.port}", Login("guest", "only-a-test"))
        peered = Peered(Mirrored([registry]), [peer.netloc], depot)
        with depot.use([ONE[0].digest]):
            async with peered.blob("team/app", ONE[0], 0, len(LARGE)) as pieces:
                assert b"".join([piece async for piece in pieces]) == LARGE
        await peered.close()
        assert len(peer.asked) > 1
        assert not any("authorization" in asked.headers for asked in peer.asked)


async def test_of_a_blob_that_is_wrong_what_the_registry_gave_is_kept(nodes: list[Node], upstream: BlobServer) -> None:
    """A liar that dies on its way: the rest of the blob came from the registry."""
    lie = liar(LARGE)

    def answer(asked: Asked) -> Said:
        return b"" if lying.asked[-1].headers.get("range", "bytes=0-").startswith("bytes=4194304-") else lie(asked)

    async with served(answer) as lying:
        node = nodes[0]
        await node.pull(upstream.port, [lying.netloc], ONE, workers=1)
        assert node.peered.from_peers == 4 << 20
        assert given(upstream) == len(LARGE)


async def test_who_gave_what_is_remembered_of_so_many_blobs_only(
    nodes: list[Node], upstream: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "remember", partial(remember, most=2))
    first, second, _ = nodes
    await first.pull(upstream.port, [])
    await second.pull(upstream.port, [first.address], workers=1)
    assert sum(bool(second.peered.doubt(each)) for each in DESCRIPTORS) == 2


async def test_one_that_gave_nothing_of_a_blob_that_is_wrong_is_not_doubted(
    nodes: list[Node], upstream: BlobServer
) -> None:
    """It says that it has it, and fails before the first byte: the registry's are wrong."""

    def answer(asked: Asked) -> Said:
        return liar(LARGE)(asked) if "/from/" in asked.path else reply(500)

    async with served(answer) as failing:
        depot = nodes[0].depot
        peered = Peered(Mirrored([Registry(f"127.0.0.1:{upstream.port}")]), [failing.netloc], depot)
        with depot.use([ONE[0].digest]):
            async with peered.blob("team/app", ONE[0], 0, len(LARGE)) as pieces:
                assert b"".join([piece async for piece in pieces]) == LARGE
        await peered.close()
    assert peered.doubt(ONE[0]) == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"",
        lambda _: b"nonsense\r\n\r\n",
        lambda _: reply(200, b"<html>"),
        lambda _: reply(500),
        lambda _: reply(200, b"[" * 3000),
        lambda _: reply(200, bytes(100_000)),
        lambda _: said(coming="whole", size=len(LARGE) + 1, have=0, ready=1 << 60),
        lambda _: said(coming="whole", size=len(LARGE), have=0, ready=1 << 60),
        lambda _: said(coming="upstream", size=len(LARGE), have=-1, ready=-5),
        lambda asked: liar(LARGE)(asked) if "/from/" in asked.path else reply(206, b"x", Content_Range="bytes 7-7/9"),
        lambda asked: liar(LARGE)(asked) if "/from/" in asked.path else reply(200, LARGE),
    ],
)
async def test_a_peer_that_makes_no_sense_is_passed_over(
    nodes: list[Node], upstream: BlobServer, answer: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "IDLE", 0.5)
    async with served(answer) as peer:
        await nodes[0].pull(upstream.port, [peer.netloc], ONE)
    assert nodes[0].peered.from_peers == 0
    assert given(upstream) == len(LARGE)


async def silent() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: silent(),
        lambda asked: liar(LARGE)(asked) if "/from/" in asked.path else silent(),
        lambda _: said(coming="upstream", size=len(LARGE), have=5, ready=0),
        lambda _: said(coming="upstream", size=len(LARGE), have=next(GROWING), ready=0),
    ],
)
async def test_one_that_stalls_is_left_out(
    nodes: list[Node], upstream: BlobServer, answer: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ANSWER", 0.2)
    monkeypatch.setattr(peers, "IDLE", 0.5)
    monkeypatch.setattr(peers, "LONGEST_WAIT", 1.0)
    async with served(answer) as peer:
        await nodes[0].pull(upstream.port, [peer.netloc], ONE)
    assert given(upstream) == len(LARGE)


async def test_one_that_waits_for_us_is_no_slow_one(
    nodes: list[Node], upstream: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a limit of our own: the clock says that the first piece has taken us longer than a peer may be silent."""
    monkeypatch.setattr(peers, "SLOWEST", 1 << 30)
    monkeypatch.setattr(peers, "ANSWER", 50.0)
    await nodes[0].pull(upstream.port, [], ONE)
    peer, came, late = Peer(nodes[0].address), 0, 0.0
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock() + late)
    async for data in peer.blob(ONE[0], 0, len(LARGE)):
        late = 51.0
        came += len(data)
    await peer.close()
    assert came == len(LARGE)


async def test_one_that_gives_again_is_left_out_no_longer_than_at_first(
    nodes: list[Node], upstream: BlobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nodes[0].pull(upstream.port, [], ONE)
    now, peer = [0.0], Peer(nodes[0].address)
    monkeypatch.setattr(peers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for _ in range(5):
        peer.leave_out()
        now[0] += peers.LONGEST_LEFT_OUT
    assert len(b"".join([data async for data in peer.blob(ONE[0], 0, 1000)])) == 1000
    peer.leave_out()
    now[0] += peers.LEFT_OUT
    assert peer.is_asked
    await peer.close()


async def test_a_blob_that_is_fetched_once_more_is_claimed_once_more(nodes: list[Node], upstream: BlobServer) -> None:
    """By the same source, as a mirror does it."""
    node, other = nodes[:2]
    peered = Peered(Mirrored([Registry(f"127.0.0.1:{upstream.port}")]), [other.address], node.depot)
    descriptor = ONE[0]
    for _ in range(2):
        with node.depot.use([descriptor.digest]), node.depot.fetching(descriptor.digest, descriptor.size, public=True):
            async with peered.blob("team/app", descriptor, 0, CHUNK) as pieces:
                assert await anext(pieces)
                assert (node.depot.path(descriptor.digest).parent / "upstream").exists()
    await peered.close()


async def test_nobody_waits_for_one_that_cannot_be_reached(nodes: list[Node], upstream: BlobServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    await nodes[0].pull(upstream.port, [address, "[::1]:1", "nonexistent.invalid:5050"])
    assert given(upstream) == ALL


async def test_manifests_come_by_digest_and_are_checked(nodes: list[Node]) -> None:
    node, digest = nodes[0], digest_of(INDEX)
    node.depot.keep(INDEX, digest, public=True)
    reference = parse(f"127.0.0.1:1/team/app@{digest}")
    for answer, found in (
        (lambda _: reply(200, INDEX + b" "), False),
        (lambda _: reply(404), False),
        (lambda _: reply(200, INDEX, Content_Type=OCI_INDEX), True),
    ):
        async with served(answer) as peer:
            peered = Peered(Mirrored([Registry("127.0.0.1:1")]), [peer.netloc], nodes[1].depot)
            if found:
                assert isinstance(await peered.image(reference), Index)
            else:
                with pytest.raises(Exception, match="no connection"):
                    await peered.image(reference)
            await peered.close()
    peered = Peered(Mirrored([Registry("127.0.0.1:1")]), [node.address], nodes[1].depot)
    assert isinstance(await peered.image(reference), Index)
    await peered.close()


async def test_where_the_registry_has_no_ranges_a_blob_comes_from_it_whole(
    nodes: list[Node], upstream: BlobServer
) -> None:
    upstream.knows_ranges = False
    await nodes[0].pull(upstream.port, [nodes[1].address], ONE)
    await nodes[1].pull(upstream.port, [nodes[0].address], ONE)
    assert nodes[1].peered.from_peers == len(LARGE)


async def test_where_registry_and_peer_lie_it_ends(nodes: list[Node], upstream: BlobServer) -> None:
    upstream.wrong = 99
    async with served(liar(LARGE)) as lying:
        with pytest.raises(Final, match="3 times something else came"):
            await nodes[0].pull(upstream.port, [lying.netloc], ONE)


def test_addresses_are_taken_as_they_are_said() -> None:
    assert Peer("[fd00::5]:5050").address == "[fd00::5]:5050"
