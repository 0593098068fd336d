"""What a node does about what its farm's server says, over TLS: with a fake Engine, and a fake agent that brings up."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from dom0.engine.values import PublishedPort
from dom0.errors import Busy, Dom0Error, Temporary
from dom0.farms import follow, join, lock, nodes, orders, pin, reboot, rollout, serve
from dom0.farms.base_os import BaseOsHost, Host
from dom0.farms.directory import FarmDirectory
from dom0.farms.follow import StoredReport
from dom0.farms.join import Membership
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.peers import is_in_memory
from dom0.farms.pin import Pin
from dom0.farms.revisions import Blob, FarmImage, NodeReport, Revision, RoleContent, RoleState
from dom0.http.client import Client
from dom0.registry.manifest import MOST_BYTES, OCI_MANIFEST, Descriptor, digest_of
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import Call, FakeEngine
from dom0.testing.farm_node import NoNeighbours

SECRET = "5" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(follow, "AGAIN", 0.02)
    monkeypatch.setattr(follow, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(join, "AGAIN", 0.02)
    monkeypatch.setattr(orders, "LOOK_AGAIN", 0.02)
    monkeypatch.setenv("DOM0_STATE", str(tmp_path / "state"))


class Agent:
    """Brings up what it is told to, and notes it. `ends`: by image, how that ends; until it has one it does not."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.generation = 0
        self.begun: list[tuple[str, Mapping[str, str], int]] = []
        self.ends: dict[str, str] = {}
        self.busy = 0
        self.is_well = True

    async def run(self, image: str, images: Mapping[str, str], *, after: int) -> str:
        for id_ in (image, *images.values()):
            assert (await self.engine.image(id_)).id == id_
        self.begun.append((image, images, after))
        if self.busy:
            self.busy -= 1
            raise Busy("dom0: another dom0 command is changing this machine")
        self.generation += 1
        return await self.find_end(image, after=after)

    async def find_end(self, image: str, *, after: int) -> str:
        if self.generation <= after:
            return "it was called off"
        while image not in self.ends:  # noqa: ASYNC110 -- the test says it at any time
            await asyncio.sleep(0.01)
        return self.ends[image]


class Neighbours(NoNeighbours):
    def __init__(self) -> None:
        self.asked = set[str]()

    def published(self, services: Iterable[str]) -> Mapping[str, tuple[PublishedPort, ...] | None]:
        self.asked |= set(services)
        return {}


class Node:
    """One that was approved, and its agent; it may be killed and started again."""

    def __init__(self, state: Path, farm: FarmDirectory, server: Pin) -> None:
        self.state = state
        self.farm = farm
        self.server = server
        self.engine = FakeEngine(FakeDocker())
        self.agent = Agent(self.engine)
        self.host: Host = BaseOsHost()
        self.neighbours = Neighbours()
        self._following: asyncio.Task[None] | None = None
        state.mkdir()
        hear = (key_of(SECRET), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code)
        waiting = farm.change(lambda before: nodes.hear(before, *hear))
        farm.change(lambda before: nodes.approve(before, waiting.code, "nas", "web"))
        farm.change(lambda before: nodes.hear(before, *hear))
        address = f"{server.host}:{server.port}"
        known = Membership(fingerprint=server.fingerprint, secret=SECRET, address=address, name="nas", role="web")
        join.keep(state, None, known)

    def start(self) -> None:
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        await follow.follow(self.state, self.engine, self.agent, self.host, self.neighbours)

    async def kill(self) -> None:
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait([self._following])

    @property
    def kept(self) -> NodeReport:
        return msgspec.json.decode((self.state / follow.FILE).read_bytes(), type=StoredReport).report

    def is_said(self, state: RoleState, revision: int) -> bool:
        """Whether the server has it."""
        found = self.farm.reports().get(key_of(SECRET), NodeReport())
        return (found.state, found.revision) == (state, revision)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 -- files and lists tell nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(farm: FarmDirectory, port: int) -> AsyncIterator[None]:
    listening = socket.create_server(("127.0.0.1", port), reuse_port=True)
    async with asyncio.timeout(60), serve.serve(farm, listening):
        yield


@pytest.fixture
async def node(farm: FarmDirectory, tmp_path: Path, port: int) -> AsyncIterator[Node]:
    made = Node(tmp_path / "state", farm, Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem)))
    made.start()
    yield made
    await made.kill()


def keep(farm: FarmDirectory, raw: bytes) -> Blob:
    blob = Blob(digest=f"sha256:{hashlib.sha256(raw).hexdigest()}", size=len(raw))
    farm.add_blob(blob.digest, [raw])
    return blob


def make_image(farm: FarmDirectory, reference: str, word: str) -> FarmImage:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(word))
    layer = keep(farm, file.getvalue())
    config = keep(farm, msgspec.json.encode({"config": {}, "rootfs": {"type": "layers", "diff_ids": [layer.digest]}}))
    described = [{"mediaType": kind, **msgspec.to_builtins(blob)} for kind, blob in ((CONFIG, config), (LAYER, layer))]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}
    manifest = keep(farm, msgspec.json.encode(document))
    return FarmImage(reference=reference, manifest=manifest, config=config, layers=(layer,))


def make_content(farm: FarmDirectory, word: str) -> RoleContent:
    return RoleContent(image=make_image(farm, "dom0:latest", f"{word}-root"), images=(make_image(farm, "nginx", word),))


def revise(farm: FarmDirectory, number: int, content: RoleContent) -> None:
    farm.revise(lambda _known: Revision(number=number, made=1.0, roles={"web": content}))


async def test_a_node_fetches_its_images_and_has_just_these_brought_up(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    own, nginx = content.image.config.digest, content.images[0].config.digest
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.TRYING, 1))
        assert node.agent.begun == [(own, {"nginx": nginx}, 0)]
        assert node.kept.fetched == content.digest
        layers = {layer.digest[7:] for image in (content.image, *content.images) for layer in image.layers}
        there = {path.name for path in (node.state / "pull").iterdir()}
        assert layers & there == (set() if is_in_memory(node.state) else layers)  # the Engine has them, others may not
        node.agent.ends[own] = ""
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        other = make_content(farm, "second")
        node.agent.ends[other.image.config.digest] = ""
        revise(farm, 2, other)
        await until(lambda: node.is_said(RoleState.GOOD, 2))
    names = {tag for image in node.engine.docker.images.all.values() for tag in image.tags}
    assert names == {f"dom0-farm:{id_[7:19]}" for id_ in (other.image.config.digest, other.images[0].config.digest)}


async def test_what_others_want_of_a_node_is_in_the_way_of_nothing_that_it_does(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content, calls, secret = make_content(farm, "first"), list[Call](), "6" * 64
    node.agent.ends[content.image.config.digest] = ""
    hear = (key_of(secret), MachineInfo(), "10.0.0.2", 1e6, nodes.draw_code)
    waiting = farm.change(lambda before: nodes.hear(before, *hear))
    farm.change(lambda before: nodes.approve(before, waiting.code, "pi", "store"))
    farm.change(lambda before: nodes.hear(before, *hear))
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        node.engine.before = calls.append
        client = Client(lambda: pin.connect(node.server), "farm")
        status, _ = await join.ask(client, "/v1/services", secret, b'{"wants": ["node:nas/service:redis:6379"]}')
        assert status == 200
        await until(lambda: node.neighbours.asked == {"service:redis:6379"})
        await client.close()
    assert calls == []


async def test_what_has_failed_is_told_and_not_tried_again(farm: FarmDirectory, node: Node, port: int) -> None:
    good, bad = make_content(farm, "good"), make_content(farm, "bad")
    node.agent.ends = {good.image.config.digest: "", bad.image.config.digest: "web is\nunhealthy\x1b"}
    async with serving(farm, port):
        revise(farm, 1, good)
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        revise(farm, 2, bad)
        await until(lambda: node.is_said(RoleState.FAILED, 2))
        assert node.kept.reason == r"web is unhealthy\x1b"
        await until(lambda: "web" in farm.rollout().pauses)
        revise(farm, 3, replace(bad, private=None))  # the same content
        revise(farm, 4, good)
        await until(lambda: node.is_said(RoleState.GOOD, 4))
    assert [image for image, _, _ in node.agent.begun] == [each.image.config.digest for each in (good, bad, good)]


async def test_layers_that_would_take_memory_go_when_the_engine_has_them(
    farm: FarmDirectory, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = make_content(farm, "first")
    with tempfile.TemporaryDirectory(prefix="dom0-test-", dir="/dev/shm") as memory:
        monkeypatch.setenv("DOM0_STATE", memory)
        node = Node(Path(memory) / "node", farm, Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem)))
        node.start()
        async with serving(farm, port):
            revise(farm, 1, content)
            await until(lambda: node.is_said(RoleState.TRYING, 1))
        await node.kill()
        layers = {layer.digest[7:] for image in (content.image, *content.images) for layer in image.layers}
        assert not layers & {path.name for path in (Path(memory) / "pull").iterdir()}


async def test_a_node_that_is_killed_while_it_tries_goes_on_from_there(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    (farm.path / "farm.yaml").write_text("name: attic\nroles: {web: {soak: 0s}}\n")
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.TRYING, 1))
        await node.kill()
        node.agent.ends[content.image.config.digest] = ""
        node.start()
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        await node.kill()
        node.start()
        revise(farm, 2, content)
        await until(lambda: node.is_said(RoleState.GOOD, 2))
    assert [after for _, _, after in node.agent.begun] == [0, 0]  # what came since then is of this attempt


@pytest.mark.parametrize(("end", "state"), [("", RoleState.GOOD), ("web is unhealthy", RoleState.FAILED)])
async def test_what_is_called_off_after_a_kill_comes_to_its_own_end(
    farm: FarmDirectory, node: Node, port: int, end: str, state: RoleState
) -> None:
    content = make_content(farm, "first")
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.TRYING, 1) and node.agent.begun)
    await node.kill()
    farm.change_rollout(lambda before: (rollout.drain(before, "nas"), None))
    node.agent.ends[content.image.config.digest] = end
    node.start()
    async with serving(farm, port):
        await until(lambda: node.is_said(state, 1))
    assert node.kept.reason == end
    assert len(node.agent.begun) == 1


async def test_what_is_called_off_before_it_has_begun_has_failed(farm: FarmDirectory, node: Node, port: int) -> None:
    node.agent.busy = 1_000_000
    async with serving(farm, port):
        revise(farm, 1, make_content(farm, "first"))
        await until(lambda: node.is_said(RoleState.TRYING, 1))
        farm.change_rollout(lambda before: (rollout.drain(before, "nas"), None))
        await until(lambda: node.is_said(RoleState.FAILED, 1))
    assert node.kept.reason == "it was called off"


async def test_a_server_that_is_gone_for_a_while_is_followed_when_it_is_back(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    first, second = make_content(farm, "first"), make_content(farm, "second")
    node.agent.ends = {each.image.config.digest: "" for each in (first, second)}
    async with serving(farm, port):
        revise(farm, 1, first)
        await until(lambda: node.is_said(RoleState.GOOD, 1))
    revise(farm, 2, second)
    await node.kill()
    node.start()
    assert node.kept.state is RoleState.GOOD
    async with serving(farm, port):
        await until(lambda: node.is_said(RoleState.GOOD, 2))


async def test_a_server_that_has_another_address_is_followed_there_once_it_is_told(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    node.agent.ends[content.image.config.digest] = ""
    with socket.create_server(("127.0.0.1", 0)) as free:
        elsewhere = Pin("127.0.0.1", free.getsockname()[1], pin.fingerprint(farm.server_pem))
    async with serving(farm, elsewhere.port):
        revise(farm, 1, content)
        membership = join.prepare(node.state, elsewhere, leave=False)  # as dom0 farm join does
        assert (await join.join(node.state, elsewhere, membership, lambda _said: None)).name == "nas"
        await until(lambda: node.is_said(RoleState.GOOD, 1))
    known = join.read(node.state)
    assert known is not None
    assert known.address == f"127.0.0.1:{elsewhere.port}"


async def test_what_was_not_done_when_another_server_answered_is_done_for_the_right_one(
    farm: FarmDirectory, node: Node, port: int, tmp_path: Path
) -> None:
    other = FarmDirectory(tmp_path / "other")
    other.make("other", await pin.make_certificate("other"), {"roles/web/compose.yaml": b"name: web\n"})
    content = make_content(farm, "first")
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.TRYING, 1))
    async with serving(other, port):
        await asyncio.sleep(0.3)
    assert other.nodes() == nodes.Nodes()  # nothing was said to it
    node.agent.ends[content.image.config.digest] = ""
    async with serving(farm, port):
        await until(lambda: node.is_said(RoleState.GOOD, 1))


async def test_a_fetch_goes_on_when_what_the_server_lacks_is_there_again(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    node.agent.ends[content.image.config.digest] = ""
    blob = farm.blob(content.images[0].layers[0].digest)
    raw = blob.read_bytes()
    blob.unlink()
    async with serving(farm, port):
        revise(farm, 1, content)
        await until((node.state / "pull").is_dir)
        assert node.agent.begun == []
    blob.write_bytes(raw)
    async with serving(farm, port):
        await until(lambda: node.is_said(RoleState.GOOD, 1))


async def test_why_a_fetch_failed_is_not_said_of_one_that_has_come(farm: FarmDirectory, node: Node, port: int) -> None:
    content = make_content(farm, "first")
    node.agent.ends[content.image.config.digest] = ""
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        await node.kill()
        full = StoredReport(report=replace(node.kept, reason="no space left on device"))
        (node.state / follow.FILE).write_bytes(msgspec.json.encode(full))
        node.start()
        await until(lambda: node.kept.reason == "")
    assert node.kept.state is RoleState.GOOD


async def test_a_server_that_sends_without_end_is_heard_as_long_as_the_blob_is(farm: FarmDirectory, port: int) -> None:
    async def without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-9/10\r\n\r\n")
            while True:
                writer.write(b"3\r\nend\r\n")
                await writer.drain()

    server, tls = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem)), pin.of_server(farm.server_pem)
    origin = follow._FarmServer(Client(lambda: pin.connect(server), "farm"), SECRET)
    wanted, heard = Descriptor(media_type="", digest=f"sha256:{0:064}", size=10), bytearray()

    async def fetch() -> None:
        async with origin.blob("", wanted, 0, 10) as pieces:
            async for piece in pieces:
                heard.extend(piece)

    listening = await asyncio.start_server(without_end, "127.0.0.1", port, reuse_port=True, ssl=tls)
    async with asyncio.timeout(60), listening:
        with pytest.raises(Temporary, match="sends more than was asked for"):
            await fetch()
        await origin.close()
    assert len(heard) <= 10


async def test_what_is_in_a_secret_that_floats_goes_past_the_disk(
    farm: FarmDirectory, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 206 X\r\nContent-Length: 6\r\nContent-Range: bytes 0-5/6\r\n\r\nsesame")
        await writer.drain()
        writer.close()

    def refuse(*_: object) -> None:
        raise AssertionError("it would be on the disk")

    monkeypatch.setattr(follow, "Depot", refuse)
    server, tls = Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem)), pin.of_server(farm.server_pem)
    origin = follow._FarmServer(Client(lambda: pin.connect(server), "farm"), SECRET)
    source = follow._FloatSource(cast("Any", None), origin)
    listening = await asyncio.start_server(answer, "127.0.0.1", port, reuse_port=True, ssl=tls)
    async with asyncio.timeout(60), listening:
        assert await source.read(Blob(digest=digest_of(b"sesame"), size=6)) == b"sesame"
        with pytest.raises(ConnectionError):
            await source.read(Blob(digest=digest_of(b"SESAME"), size=6))
        await origin.close()


async def test_bytes_that_are_not_what_their_digest_says_reach_no_engine(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    blob = farm.blob(content.images[0].layers[0].digest)
    blob.write_bytes(b"x" * blob.stat().st_size)
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: "something else came" in farm.reports().get(key_of(SECRET), NodeReport()).reason)
    assert node.agent.begun == []
    assert content.images[0].config.digest not in node.engine.docker.images.all


async def test_a_manifest_that_no_registry_would_take_is_refused_before_it_comes(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    document = farm.blob(content.image.manifest.digest).read_bytes()
    large = keep(farm, document.ljust(MOST_BYTES + 1))
    async with serving(farm, port):
        revise(farm, 1, replace(content, image=replace(content.image, manifest=large)))
        said = "dom0:latest: manifest: longer than 4 MiB"
        await until(lambda: said == farm.reports().get(key_of(SECRET), NodeReport()).reason)
    assert node.agent.begun == []
    assert not [path for path in (node.state / "pull").rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]


async def test_where_a_person_changes_the_machine_it_is_tried_again(farm: FarmDirectory, node: Node, port: int) -> None:
    content = make_content(farm, "first")
    node.agent.busy, node.agent.ends[content.image.config.digest] = 3, ""
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.GOOD, 1))
    assert len(node.agent.begun) == 4


async def test_another_role_is_taken_up_and_known_by_the_node(farm: FarmDirectory, node: Node, port: int) -> None:
    web, store = make_content(farm, "web"), make_content(farm, "store")
    node.agent.ends = {each.image.config.digest: "" for each in (web, store)}
    async with serving(farm, port):
        farm.revise(lambda _known: Revision(number=1, made=1.0, roles={"web": web, "store": store}))
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        farm.change(lambda before: nodes.assign(before, "nas", "store"))
        await until(lambda: len(node.agent.begun) == 2 and node.kept.state is RoleState.GOOD)
    assert node.agent.begun[1][0] == store.image.config.digest
    membership = join.read(node.state)
    assert membership is not None
    assert membership.role == "store"


async def test_a_node_that_is_removed_waits_again_and_what_it_runs_goes_on(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    content = make_content(farm, "first")
    node.agent.ends[content.image.config.digest] = ""
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        farm.change(lambda before: nodes.remove(before, "nas"))
        await until(lambda: farm.nodes().nodes)
        (waiting,) = farm.nodes().nodes
        farm.change(lambda before: nodes.approve(before, waiting.code, "nas2", "web"))
        await until(lambda: node.is_said(RoleState.GOOD, 1))
        await until(lambda: (known := join.read(node.state)) and known.name == "nas2")  # its name is another one
    assert len(node.agent.begun) == 1


async def test_a_node_reboots_when_it_may_and_gives_the_lock_back_when_it_is_well_again(
    farm: FarmDirectory, node: Node, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "WAIT", 0.1)
    monkeypatch.setattr(reboot, "AGAIN", 0.02)
    monkeypatch.setattr(follow, "WELL_FOR", 0.0)
    other = rollout.Lock(group="web", id="pi1", since=1.0)
    farm.change_rollout(lambda before: (replace(before, locks=(other,)), None))
    said: list[str] = []

    def names() -> list[str]:
        return [lock.id for lock in farm.rollout().locks]

    async def restart() -> None:
        async with reboot.locked(node.state, said.append):
            assert names() == ["nas"]

    node.agent.is_well = False
    restarting = asyncio.create_task(restart())
    await until(lambda: said)  # no server answers
    async with serving(farm, port):
        await until(lambda: len(said) == 2)
        assert said[1] == "nas waits before it restarts: pi1: has its place of the group web"
        farm.change_rollout(lambda before: lock.unlock(before, "pi1"))
        await restarting
        (node.state / reboot.FILE).write_bytes(msgspec.json.encode(reboot.RebootRequest(boot="of before")))
        assert names() == ["nas"]
        node.agent.is_well = True
        await until(lambda: names() == [] and not (node.state / reboot.FILE).exists())


async def test_a_node_that_was_well_for_a_moment_keeps_its_lock(
    farm: FarmDirectory, node: Node, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "WAIT", 0.1)
    looks = 0

    def look(_agent: Agent) -> bool:
        nonlocal looks
        looks += 1
        return looks % 2 == 1

    monkeypatch.setattr(follow, "WELL_FOR", 0.05)
    monkeypatch.setattr(Agent, "is_well", property(look, lambda _agent, _value: None), raising=False)
    own = rollout.Lock(group="web", id="nas", since=1.0)
    farm.change_rollout(lambda before: (replace(before, locks=(own,)), None))
    (node.state / reboot.FILE).write_bytes(msgspec.json.encode(reboot.RebootRequest(boot="of before")))
    async with serving(farm, port):
        await until(lambda: looks > 8)
        assert farm.rollout().locks == (own,)


async def test_a_restart_that_fails_or_is_called_off_gives_the_lock_back(
    farm: FarmDirectory, node: Node, port: int
) -> None:
    async def restart() -> None:
        async with reboot.locked(node.state, lambda _said: None):
            assert [lock.id for lock in farm.rollout().locks] == ["nas"]
            raise Busy("it did not restart")

    async with serving(farm, port):
        with pytest.raises(Busy):
            await restart()
    assert farm.rollout().locks == ()
    assert not (node.state / reboot.FILE).exists()


async def test_a_machine_that_is_no_node_restarts_at_once(tmp_path: Path) -> None:
    async with reboot.locked(tmp_path, lambda _said: None):
        assert not (tmp_path / reboot.FILE).exists()


async def test_a_file_of_its_own_that_is_damaged_is_begun_anew(farm: FarmDirectory, node: Node, port: int) -> None:
    await node.kill()
    (node.state / follow.FILE).write_bytes(b"\xff")
    content = make_content(farm, "first")
    node.agent.ends[content.image.config.digest] = ""
    node.start()
    async with serving(farm, port):
        revise(farm, 1, content)
        await until(lambda: node.is_said(RoleState.GOOD, 1))


def test_what_a_node_kept_is_nothing_damaged_and_looking_at_it_fills_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert follow.read(tmp_path) == StoredReport()
    (tmp_path / follow.FILE).write_bytes(b"{}}")
    with pytest.raises(Dom0Error, match="is damaged"):
        follow.read(tmp_path)
    assert not caplog.records
