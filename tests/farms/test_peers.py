"""Nodes of a farm that give each other blobs, over TLS: what it takes of the server, and who gets what."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dom0.farms import join, nodes, orders, peers, pin, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.follow import _FarmServer
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.pin import Pin
from dom0.farms.revisions import Blob, FarmImage, FollowRequest, Gives, NodeReport, Peers, Revision, RoleContent
from dom0.http import server as http_server
from dom0.http.client import Client
from dom0.http.server import Request, Response, route
from dom0.registry import peers as registry_peers
from dom0.registry.depot import Depot
from dom0.registry.fetch import fetch
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import Descriptor, digest_of
from dom0.registry.serve import Shared
from dom0.testing.blob_server import content

LAYERS = [content(size, size) for size in (6 * CHUNK + 17, 3 * CHUNK, 5000)]
PRIVATE = b"a secret"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out because this machine is busy."""
    monkeypatch.setattr(orders, "WAIT", 0.1)
    monkeypatch.setattr(orders, "LOOK_AGAIN", 0.02)
    monkeypatch.setattr(registry_peers, "ANSWER", 60.0)
    monkeypatch.setattr(registry_peers, "IDLE", 60.0)


class CountedOrigin(_FarmServer):
    """`sent`: bytes of blobs that the server gave."""

    sent = 0

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with super().blob(repository, descriptor, start, stop) as pieces:
            yield self._counted(pieces)

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.sent += len(piece)
            yield piece


class Node:
    """As far as it fetches and gives; `gives` is what it tells the server."""

    def __init__(self, farm: FarmDirectory, server: Pin, name: str, role: str, state: Path) -> None:
        state.mkdir()
        secret = secrets.token_hex(32)
        hear = (key_of(secret), MachineInfo(), "127.0.0.1", 1e6, nodes.draw_code)
        waiting = farm.change(lambda before: nodes.hear(before, *hear))
        farm.change(lambda before: nodes.approve(before, waiting.code, name, role))
        farm.change(lambda before: nodes.hear(before, *hear))
        self.state = state
        self.secret = secret
        self.depot = Depot(state / "pull", 1 << 30)
        self.client = Client(lambda: pin.connect(server), "farm")
        self.origin = CountedOrigin(self.client, secret)
        self.gives: Gives | None = None
        self.from_nodes = 0  # bytes

    async def give(self, stack: AsyncExitStack) -> None:
        self.gives = await stack.enter_async_context(peers.giving(self.state, self.depot, self.origin.nodes.passes))
        await self.say()

    async def say(self, fetched: str = "") -> int:
        body = msgspec.json.encode(FollowRequest(report=NodeReport(fetched=fetched), gives=self.gives))
        return (await join.ask(self.client, "/v1/follow", self.secret, body))[0]

    async def ask_nodes(self) -> tuple[int, Peers]:
        status, said = await join.ask(self.client, "/v1/peers", self.secret, b"{}")
        return status, msgspec.json.decode(said, type=Peers) if status == 200 else Peers()

    async def fetch(self, content: RoleContent, *, first: Node | None = None) -> int:
        """Returns how many bytes came from the server. `first`: which node is asked before all others."""
        before = self.origin.sent
        await self.origin.know_nodes()
        if first is not None and first.gives is not None:
            told = (await self.ask_nodes())[1]
            port = first.gives.port
            ordered = tuple(sorted(told.nodes, key=lambda each: each.port != port))
            await self.origin.nodes.know(Peers())
            await self.origin.nodes.know(replace(told, nodes=ordered))
        blobs = self.origin.nodes.asked_before(self.origin, self.depot, self.origin.find_chunks)
        wanted = [Descriptor(media_type="", digest=each.digest, size=each.size) for each in content.image.layers]
        with self.depot.use(each.digest for each in wanted):
            await fetch(wanted, blobs, self.depot, repository="farm", doubt=blobs.doubt)
        self.from_nodes += blobs.from_peers
        for each in wanted:
            assert digest_of(self.depot.path(each.digest).read_bytes()) == each.digest
        await self.say(content.digest)
        return self.origin.sent - before

    async def get(self, other: Gives, digest: str, authorization: str) -> int:
        """The status with which the other one answers."""
        client = Client(lambda: pin.connect(Pin("127.0.0.1", other.port, other.fingerprint)), "node")
        try:
            headers = {"Authorization": authorization} if authorization else {}
            async with client.ask("GET", f"/blobs/{digest}", headers=headers) as answer:
                return answer.status
        finally:
            await client.close()


class Farm:
    def __init__(self, farm: FarmDirectory, server: Pin, directory: Path, stack: AsyncExitStack) -> None:
        self.farm = farm
        self.server = server
        self.nodes: list[Node] = []
        self._directory = directory
        self._stack = stack

    async def enroll(self, role: str = "web", *, gives: bool = True) -> Node:
        name = f"node{len(self.nodes)}"
        node = Node(self.farm, self.server, name, role, self._directory / name)
        self.nodes.append(node)
        self._stack.push_async_callback(node.origin.close)
        if gives:
            await node.give(self._stack)
        return node

    async def enroll_false(
        self,
        answer: Callable[[Request], Response],
        role: str = "web",
        *,
        share: Callable[[Request], Response] | None = None,
    ) -> Node:
        """One that answers questions for blobs with anything, and says that it has all of the revision."""
        node = await self.enroll(role, gives=False)
        pem = node.state / "own.pem"
        pem.write_bytes(self.farm.server_pem.read_bytes())  # any will do

        async def say(request: Request) -> Response:
            return answer(request)

        async def say_share(request: Request) -> Response:
            return share(request) if share else has_all(request)

        listening = socket.create_server(("127.0.0.1", 0))
        routes = {"GET /blobs/{digest}": say, "GET /blobs/{digest}/from/{at}": say_share}
        await self._stack.enter_async_context(
            http_server.serve(route(routes), listening, tls=pin.of_server(pem), end_within=0)
        )
        node.gives = Gives(port=listening.getsockname()[1], fingerprint=pin.fingerprint(pem))
        current = self.farm.current()
        await node.say(current.roles[role].digest if current else "")
        return node


def layer_of(request: Request) -> bytes:
    return next(layer for layer in LAYERS if digest_of(layer) == request.captured["digest"])


def ranged(request: Request, blob: bytes) -> Response:
    first, last = map(int, request.headers.get("Range").removeprefix("bytes=").split("-"))

    async def pieces() -> AsyncGenerator[bytes]:
        for at in range(first, last + 1, 64 << 10):
            yield blob[at : min(at + (64 << 10), last + 1)]

    headers = (("Content-Length", str(last + 1 - first)), ("Content-Range", f"bytes {first}-{last}/{len(blob)}"))
    return Response(pieces(), 206, "application/octet-stream", headers)


def has_all(request: Request) -> Response:
    size = len(layer_of(request))
    share = Shared("whole", size, size, size - int(request.captured["at"]), "f" * 32)
    return Response(msgspec.json.encode(share))


def keep(farm: FarmDirectory, raw: bytes) -> Blob:
    blob = Blob(digest=digest_of(raw), size=len(raw))
    farm.add_blob(blob.digest, [raw])
    return blob


def content_of(farm: FarmDirectory, word: str, layers: list[bytes]) -> RoleContent:
    manifest, config = keep(farm, f"{word} manifest".encode()), keep(farm, f"{word} config".encode())
    image = FarmImage(
        reference="dom0:latest", manifest=manifest, config=config, layers=tuple(keep(farm, each) for each in layers)
    )
    return RoleContent(image=image, private=keep(farm, PRIVATE))


@pytest.fixture
def web(farm: FarmDirectory) -> RoleContent:
    made = content_of(farm, "web", LAYERS)
    farm.revise(lambda _known: Revision(number=1, made=1.0, roles={"web": made}))
    return made


@pytest.fixture
async def served(farm: FarmDirectory, web: RoleContent, tmp_path: Path) -> AsyncIterator[Farm]:
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(120), AsyncExitStack() as stack:
        await stack.enter_async_context(serve.serve(farm, listening))
        at = Pin("127.0.0.1", listening.getsockname()[1], pin.fingerprint(farm.server_pem))
        yield Farm(farm, at, tmp_path, stack)


async def test_the_second_node_takes_nothing_of_the_server(served: Farm, web: RoleContent) -> None:
    first, second = await served.enroll(), await served.enroll()
    assert await first.fetch(web) == sum(map(len, LAYERS))
    assert await second.fetch(web) == 0


async def test_three_that_fetch_at_once_take_hardly_more_than_one(served: Farm, web: RoleContent) -> None:
    fetching = [(await served.enroll()).fetch(web) for _ in range(3)]
    assert sum(await asyncio.gather(*fetching)) <= sum(map(len, LAYERS)) + 2 * CHUNK


async def test_layers_of_another_role_come_from_its_nodes(served: Farm, web: RoleContent, farm: FarmDirectory) -> None:
    store = content_of(farm, "store", [LAYERS[0], b"of its own"])
    farm.revise(lambda _known: Revision(number=2, made=2.0, roles={"web": web, "store": store}))
    first, second = await served.enroll("web"), await served.enroll("store")
    await first.fetch(web)
    assert await second.fetch(store) == len(b"of its own")


async def test_only_who_shows_the_pass_of_a_blob_is_given_it(
    served: Farm, web: RoleContent, farm: FarmDirectory
) -> None:
    store = content_of(farm, "store", [b"of its own"])
    farm.revise(lambda _known: Revision(number=2, made=2.0, roles={"web": web, "store": store}))
    first, second, other = await served.enroll(), await served.enroll(), await served.enroll("store")
    await first.fetch(web)
    assert first.gives is not None
    passes, foreign = (await second.ask_nodes())[1].passes, (await other.ask_nodes())[1].passes
    small, large = web.image.layers[2].digest, web.image.layers[0].digest
    at = first.gives.fingerprint
    good = peers.proof(passes[small], at)
    assert await second.get(first.gives, small, f"Bearer {good}") == 200
    for wrong in (good, *(f"Bearer {one}" for one in (peers.proof(passes[large], at), passes[small], second.secret))):
        assert await second.get(first.gives, small, wrong) == 403
    for wrong in ("", "Bearer"):
        assert await second.get(first.gives, small, wrong) == 403
    assert small not in foreign
    assert await second.get(first.gives, "sha256:" + "0" * 64, "Bearer") == 404
    assert await second.get(first.gives, "x", "Bearer") == 404


async def test_what_is_shown_to_a_node_of_another_role_is_good_for_no_other_node(
    served: Farm, web: RoleContent, farm: FarmDirectory
) -> None:
    """It is asked for all blobs, also for those that its role does not have."""
    shown = set[str]()

    def answer(request: Request) -> Response:
        shown.update(request.headers.all("Authorization"))
        return Response(status=404)

    store = content_of(farm, "store", LAYERS[:1])
    farm.revise(lambda _known: Revision(number=2, made=2.0, roles={"web": web, "store": store}))
    stranger = await served.enroll_false(answer, "store", share=answer)
    first, second = await served.enroll(), await served.enroll()
    await first.fetch(web)
    assert first.gives is not None
    foreign = web.image.layers[1].digest
    assert foreign not in (await stranger.ask_nodes())[1].passes
    assert len(shown) >= len(LAYERS)
    assert {await stranger.get(first.gives, foreign, each) for each in shown} == {403}
    assert await second.fetch(web) == 0


async def test_a_blob_whose_pass_is_not_known_comes_from_the_server(served: Farm, web: RoleContent) -> None:
    first, second = await served.enroll(), await served.enroll()
    await first.fetch(web)
    await second.origin.know_nodes()
    second.origin.nodes.passes.clear()
    blobs = second.origin.nodes.asked_before(second.origin, second.depot, second.origin.find_chunks)
    small = web.image.layers[2]
    with second.depot.use([small.digest]):
        wanted = Descriptor(media_type="", digest=small.digest, size=small.size)
        await fetch([wanted], blobs, second.depot, repository="farm", doubt=blobs.doubt)
    assert (second.origin.sent, blobs.from_peers) == (small.size, 0)


async def test_private_files_come_from_the_server_alone(served: Farm, web: RoleContent) -> None:
    node = await served.enroll()
    assert web.private is not None
    assert web.private.digest not in (await node.ask_nodes())[1].passes


async def test_who_is_no_node_learns_nothing_of_nodes(served: Farm, farm: FarmDirectory, web: RoleContent) -> None:
    await (await served.enroll()).fetch(web)
    gone = await served.enroll()
    assert (await gone.ask_nodes())[1].nodes
    farm.change(lambda before: nodes.remove(before, "node1"))
    assert await gone.ask_nodes() == (403, Peers())


async def test_a_node_that_lies_costs_a_mebibyte(served: Farm, web: RoleContent) -> None:
    """It has nothing of what it says to have. The honest one gives the rest, and the server nothing."""
    honest = await served.enroll()
    await honest.fetch(web)

    liar = await served.enroll_false(lambda request: ranged(request, bytes(len(layer_of(request)))))
    node = await served.enroll()
    assert await node.fetch(web, first=liar) <= CHUNK
    # Two workers may have found it out at the same time.
    assert sum(map(len, LAYERS)) < node.from_nodes + node.origin.sent <= sum(map(len, LAYERS)) + 2 * CHUNK


@pytest.mark.parametrize("end", ["stalls", "dies"])
async def test_a_node_that_stalls_or_dies_costs_a_mebibyte(
    served: Farm, web: RoleContent, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await served.enroll()).fetch(web)

    def fail(request: Request) -> Response:
        async def some(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
            yield (await anext(pieces))[:1000]
            if end == "dies":
                raise ConnectionAbortedError
            await asyncio.Event().wait()

        found = ranged(request, layer_of(request))
        assert not isinstance(found.body, bytes)
        return replace(found, body=some(found.body))

    failing = await served.enroll_false(fail)
    if end == "stalls":
        monkeypatch.setattr(registry_peers, "ANSWER", 2.0)
    assert await (await served.enroll()).fetch(web, first=failing) <= CHUNK


async def test_a_node_that_gives_a_byte_at_a_time_is_left_out(served: Farm, web: RoleContent) -> None:
    await (await served.enroll()).fetch(web)
    asked: list[Request] = []

    def give_one(request: Request) -> Response:
        asked.append(request)
        first, blob = int(request.headers.get("Range")[6:].partition("-")[0]), layer_of(request)
        said = (("Content-Range", f"bytes {first}-{first}/{len(blob)}"),)
        return Response(blob[first : first + 1], 206, "application/octet-stream", said)

    node = await served.enroll_false(give_one)
    assert await (await served.enroll()).fetch(web, first=node) <= CHUNK
    assert len(asked) < 50


async def test_a_node_that_fails_once_is_waited_for_and_the_server_is_not_asked(served: Farm, web: RoleContent) -> None:
    failures = iter([Response(status=500)])
    await served.enroll_false(lambda request: next(failures, None) or ranged(request, layer_of(request)))
    assert await (await served.enroll()).fetch(web) == 0
    assert next(failures, None) is None


async def test_nodes_that_cannot_be_reached_are_in_nobodys_way(served: Farm, web: RoleContent) -> None:
    first = await served.enroll()
    await first.fetch(web)
    assert first.gives is not None
    first.gives = replace(first.gives, fingerprint="0" * 64)  # another one answers there
    await first.say(web.digest)
    assert await (await served.enroll()).fetch(web) == sum(map(len, LAYERS))


async def test_a_key_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / peers.PEM).write_text("-----BEGIN CERTIFICATE-----\nno\n")
    depot = Depot(tmp_path / "pull", 1 << 20)
    async with peers.giving(tmp_path, depot, {}) as found:
        pass
    async with peers.giving(tmp_path, depot, {}) as again:
        assert again.fingerprint == found.fingerprint
    assert (tmp_path / peers.PEM).stat().st_mode & 0o777 == 0o600


def test_what_is_in_memory_is_known(tmp_path: Path) -> None:
    assert peers.is_in_memory(Path("/dev/shm"))  # noqa: S108 -- nothing is written there
    assert not peers.is_in_memory(Path("/proc"))
