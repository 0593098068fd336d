"""An Engine on this machine takes layers while others still come, and nothing of ours stays there."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dom0.engine.docker import DockerEngine
from dom0.engine.values import EngineInfo, PullProgress
from dom0.errors import NotFound
from dom0.images import feed
from dom0.images.loading import LOADED, NamedImage
from dom0.images.pull import KEPT, pull
from dom0.registry.depot import Depot
from dom0.registry.manifest import CONFIGS, LAYERS, OCI_MANIFEST, Descriptor, ImageManifest, digest_of
from dom0.registry.progress import Meter
from dom0.registry.reference import parse
from dom0.testing import debian_registry
from dom0.testing.debian_registry import DebianRegistry, written
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.fault_proxy import Faults
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host
from dom0.testing.possible import require
from dom0.testing.tars import tar_of

STORES = {"own": OWN_STORE, "containerd": CONTAINERD_STORE}
BASE, TOP = {"base": os.urandom(1 << 20)}, {"top": os.urandom(4 << 20)}
BOTH_STORES = pytest.mark.parametrize("store", STORES)


@pytest.fixture
def host(fresh_host: Callable[..., Host], store: str) -> Host:
    return fresh_host(config=STORES[store])


@pytest.fixture
def near(host: Host, tmp_path: Path) -> Iterator[DebianRegistry]:
    """On that host."""
    require(debian_registry.missing(), "tests of a registry")
    (tmp_path / "near").mkdir()
    with DebianRegistry(tmp_path / "near", popen=host.popen) as registry:
        yield registry


class Line:
    """`host`: host:port of a registry over it; `sent`: bytes, once it has ended."""

    host, sent = "", 0


@contextlib.contextmanager
def line_to(registry: DebianRegistry, host: Host, faults: Faults = Faults()) -> Iterator[Line]:  # noqa: B008 -- frozen
    """On that host."""
    port, line = registry.host.rpartition(":")[2], Line()
    argv = [sys.executable, "-m", "dom0.testing.fault_proxy", port, msgspec.json.encode(faults).decode()]
    with host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdin
        assert proxy.stdout
        line.host = f"127.0.0.1:{proxy.stdout.readline().decode().strip()}"
        yield line
        proxy.stdin.close()
        line.sent = int(proxy.stdout.readline())


def dom0_pull(host: Host, *arguments: str) -> Any:
    return json.loads(host.run([sys.executable, "-m", "dom0", "image", "pull", "--json", *arguments]).stdout)[0]


def names(host: Host) -> list[str]:
    listed = host.docker("image", "ls", "--all", "--format={{.Repository}}:{{.Tag}}").stdout
    return sorted(listed.split())


def content(host: Host, image: str, file: str) -> bytes:
    """Of a container of it."""
    host.docker("create", "--name=made", image, "none")
    host.docker("cp", f"made:/{file}", "/var/lib/dom0/copied")
    host.docker("rm", "made")
    return (host.state / "copied").read_bytes()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("store", ["own"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_layer_is_unpacked_while_the_next_one_comes_and_gone_when_the_pull_is_ended(
    host: Host, near: DebianRegistry, number: signal.Signals
) -> None:
    near.content.image("team/app", "1", [BASE, TOP])
    unpacked = host.path("/var/lib/docker/image/overlay2/layerdb/sha256") / digest_of(tar_of(BASE)).partition(":")[2]
    before = names(host)
    with line_to(near, host, Faults(rate=1e6)) as line:
        name = f"{line.host}/team/app:1"
        with host.popen([sys.executable, "-m", "dom0", "image", "pull", name], stderr=subprocess.DEVNULL) as pull:
            wait_for(unpacked.exists)
            pull.send_signal(number)
        wait_for(lambda: not unpacked.exists())
        assert names(host) == before
        dom0_pull(host, name)
    assert names(host) == sorted([*before, name])
    assert content(host, name, "base") == BASE["base"]
    assert content(host, name, "top") == TOP["top"]


@BOTH_STORES
def test_an_engine_that_is_away_while_layers_come_has_the_image_in_the_end(host: Host, near: DebianRegistry) -> None:
    near.content.image("team/app", "1", [BASE, TOP])
    before, depot = names(host), host.state / "pull"
    with line_to(near, host, Faults(rate=1e6)) as line:
        name = f"{line.host}/team/app:1"
        argv = [sys.executable, "-m", "dom0", "image", "pull", "--json", name]
        with host.popen(argv, stdout=subprocess.PIPE) as pull:
            assert pull.stdout
            wait_for(lambda: any(part.stat().st_size > 1 << 16 for part in depot.glob("*/[0-9]*")))
            host.kill_engine()
            wait_for(lambda: len(list(depot.glob("*/blob"))) == 3)
            host.start_engine()
            (made,) = json.loads(pull.stdout.read())
        assert pull.returncode == 0
    assert made["received"] == made["size"]
    assert names(host) == sorted([*before, name])
    assert content(host, name, "top") == TOP["top"]


@BOTH_STORES
def test_whatever_the_line_does_the_engine_has_the_image_and_next_to_nothing_came_twice(
    host: Host, near: DebianRegistry
) -> None:
    """The last one is that of an ADSL modem which is reset each 8 s, eight times as fast."""
    near.content.image("team/app", "1", [BASE, TOP])
    size = sum(blob.stat().st_size for blob in near.content.directory.rglob("data"))
    for faults in (
        Faults(every_bytes=1 << 20, rate=8e6),
        Faults(every_bytes=1 << 20, rate=8e6, how="reset"),
        Faults(every_bytes=2 << 20, rate=8e6, how="stall"),
        Faults(every_bytes=2 << 20, rate=8e6, refuse=3),
        Faults(every_bytes=1_000_000, rate=2e6, how="reset", rtt=0.05),
        Faults(every_seconds=1, rate=1e6, how="reset"),
    ):
        with line_to(near, host, faults) as line:
            name = f"{line.host}/team/app:1"
            made = dom0_pull(host, name)
            assert content(host, name, "top") == TOP["top"]
            host.docker("image", "rm", "--force", name)
        assert made["received"] <= 1.005 * size, faults
        shutil.rmtree(host.state / "pull")


@BOTH_STORES
def test_the_engines_own_pull_then_needs_less_than_8_kb(host: Host, near: DebianRegistry) -> None:
    near.content.image("team/app", "1", [BASE, TOP], platforms=["linux/amd64", "linux/arm64"])
    with line_to(near, host) as line:
        name = f"{line.host}/team/app:1"
        made = dom0_pull(host, name)
        for _ in range(2):
            assert "Image is up to date" in host.docker("pull", name).stdout
    assert line.sent - made["received"] < 2 * 8000  # the manifests that dom0 asked for are in that too


@pytest.mark.parametrize("store", ["containerd"])
def test_containerd_needs_no_archive_and_no_name_of_ours_stays_nor_of_a_pull_that_was_killed(
    host: Host, near: DebianRegistry
) -> None:
    near.content.image("team/app", "1", [BASE, TOP], platforms=["linux/amd64", "linux/arm64"])
    name, before = f"{near.host}/team/app:1", names(host)
    killed, runs = "127.0.0.1:1/dom0-loaded:0123", f"{near.host}/dom0-loaded:0123"
    for each in (killed, runs):
        host.docker("tag", "busybox:test", each)
    for options in ([], ["--platform=linux/arm64"]):
        began = str(int(time.time()))
        dom0_pull(host, *options, name)
        until = f"--until={int(time.time()) + 1}"
        kinds = ("--filter=event=pull", "--filter=event=load")
        events = host.docker("events", f"--since={began}", until, *kinds, "--format=json").stdout
        (event,) = map(json.loads, events.splitlines())
        assert event["Action"] == "pull"
        assert "/dom0-loaded" in event["Actor"]["Attributes"]["name"]
        assert names(host) == sorted([*before, name, runs])
        assert content(host, name, "top") == TOP["top"]
        host.docker("image", "rm", name)


@BOTH_STORES
def test_a_layer_that_was_damaged_on_the_disk_comes_again(host: Host, near: DebianRegistry) -> None:
    near.content.image("team/app", "1", [BASE, TOP])
    name = f"{near.host}/team/app:1"
    made = dom0_pull(host, name)
    host.docker("image", "rm", "--force", made["id"])
    damaged = max((host.state / "pull").glob("*/blob"), key=lambda blob: blob.stat().st_size)
    damaged.write_bytes(bytes(damaged.stat().st_size))
    again = dom0_pull(host, name)
    assert (again["id"], again["received"]) == (made["id"], damaged.stat().st_size)
    assert content(host, name, "top") == TOP["top"]


def zeros(count: int) -> bytes:
    """A layer, packed, of one file of so many GiB."""
    head = tarfile.TarInfo("zeros")
    head.size = count << 30
    packer = zlib.compressobj(9, wbits=31)
    gib = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    return gzip.compress(head.tobuf()) + count * gib


@BOTH_STORES
def test_of_an_image_that_becomes_too_much_the_engine_unpacks_little_and_keeps_nothing(
    host: Host, near: DebianRegistry
) -> None:
    """Of several layers, of which the last one is a bomb."""
    disk = host.path("/var/lib/docker")
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free - (6 << 30))
    free = shutil.disk_usage(disk).free
    bomb = near.content.blob("team/app", zeros(7), LAYERS[1])
    base = near.content.blob("team/app", tar_of(BASE), LAYERS[0])
    rootfs = {"type": "layers", "diff_ids": [digest_of(tar_of(BASE)), digest_of(b"")]}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs, "history": []}
    described = near.content.blob("team/app", json.dumps(config).encode(), CONFIGS[0])
    layers = [written(base), written(bomb)]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": written(described), "layers": layers}
    near.content.manifest("team/app", document, "1")
    before = names(host)
    pull = [sys.executable, "-m", "dom0", "image", "pull", f"{near.host}/team/app:1"]
    least = free
    with host.popen(pull, stderr=subprocess.PIPE) as refused:
        while refused.poll() is None:
            least = min(least, shutil.disk_usage(disk).free)
            time.sleep(0.01)
        assert refused.stderr
        said = refused.stderr.read().decode()
    assert refused.returncode != 0
    assert f"layer {bomb.digest}: with it the image becomes more than" in said
    assert names(host) == before
    assert 1 << 30 < free - least < 3 << 30  # 1 GiB, and a hundred times 7 MB, and what comes until it is ended
    wait_for(lambda: shutil.disk_usage(disk).free > free - (64 << 20))


@BOTH_STORES
def test_a_layer_that_the_engine_cannot_unpack_ends_the_pull(host: Host, near: DebianRegistry) -> None:
    layers = [written(near.content.blob("team/app", each, LAYERS[0])) for each in (b"no archive" * 100, tar_of(BASE))]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs, "history": []}
    described = near.content.blob("team/app", json.dumps(config).encode(), CONFIGS[0])
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": written(described), "layers": layers}
    near.content.manifest("team/app", document, "1")
    before = names(host)
    pull = [sys.executable, "-m", "dom0", "image", "pull", f"{near.host}/team/app:1"]
    refused = host.run(pull, check=False)
    assert refused.code != 0
    assert "nor can the Docker Engine pull it" in refused.stderr
    assert names(host) == before


@pytest.mark.parametrize("store", ["own"])
async def test_a_layer_whose_digest_the_engine_does_not_know_does_not_come_again(
    host: Host, near: DebianRegistry, tmp_path: Path
) -> None:
    """It was loaded from elsewhere and not pulled, so the Engine asks for it."""
    (tmp_path / "far").mkdir()
    with DebianRegistry(tmp_path / "far") as far:
        far.content.image("team/base", "1", [BASE])
        engine = await DockerEngine.connect(host.docker_host)
        await pull(engine, Depot(tmp_path / "depot", KEPT), parse(f"{far.host}/team/base:1"), meter=Meter())
        await engine.close()
    near.content.image("team/app", "1", [BASE, {"text": b"hello\n"}])
    made = dom0_pull(host, f"{near.host}/team/app:1")
    assert (made["layers_here"], made["received"] < len(BASE["base"])) == (1, True)
    assert content(host, f"{near.host}/team/app:1", "text") == b"hello\n"


@pytest.mark.parametrize("store", ["own"])
def test_where_nothing_can_listen_all_comes_with_the_archive(host: Host, near: DebianRegistry) -> None:
    """192.0.2.1 is no address of any machine (RFC 5737)."""
    near.content.image("team/app", "1", [BASE, {"text": b"hello\n"}])
    name = f"{near.host}/team/app:1"
    code = "import runpy, sys; from dom0.images import feed; feed._HOST = '192.0.2.1'; "
    code += f"sys.argv = ['dom0', 'image', 'pull', '{name}']; runpy.run_module('dom0', run_name='__main__')"
    host.run([sys.executable, "-c", code])
    assert content(host, name, "text") == b"hello\n"


class Held(FakeEngine):
    """One whose pull waits for layers."""

    def __init__(self) -> None:
        super().__init__(FakeDocker())
        self.left = asyncio.Event()

    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        try:
            yield PullProgress(layer=digest_of(b"layer")[7:19], status="Pull complete")
            await asyncio.Event().wait()
        finally:
            self.left.set()


async def test_the_engine_may_let_pulls_of_others_wait_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(feed, "MOST_HELD", 0.01)
    layer, config = (Descriptor(kind, digest_of(name), 5) for kind, name in ((LAYERS[0], b"layer"), (CONFIGS[0], b"")))
    manifest = ImageManifest(config, (layer,), b"{}", OCI_MANIFEST, digest_of(b"{}"))
    image, engine = NamedImage(parse("app:1"), manifest, None, config.digest), Held()
    depot, ids = Depot(tmp_path / "depot", KEPT), [digest_of(b"tar")]
    async with feed.feeding(
        engine, depot, image, ids, [layer], feed.EngineDisk(tmp_path, 0), containerd_store=False
    ) as feeding:
        async with asyncio.timeout(60):
            await engine.left.wait()
        assert await feeding.taken() == frozenset()


class Reader(FakeEngine):
    """One that takes a layer and keeps what it got of it."""

    def __init__(self, layer: Descriptor) -> None:
        super().__init__(FakeDocker())
        self.got = bytearray()
        self._layer = layer

    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        await asyncio.to_thread(self._read, ref.partition("/")[0], login)
        yield PullProgress(layer=self._layer.digest[7:19], status="Pull complete")
        await asyncio.Event().wait()

    def _read(self, address: str, login: Mapping[str, str]) -> None:
        secret = b64encode(f"{login['username']}:{login['password']}".encode()).decode()
        with contextlib.closing(http.client.HTTPConnection(address)) as connection:
            path = f"/v2/{LOADED}/blobs/{self._layer.digest}"
            connection.request("GET", path, headers={"Authorization": f"Basic {secret}"})
            answer = connection.getresponse()
            while data := answer.read1():
                self.got += data


async def test_a_layer_is_given_while_it_comes(tmp_path: Path) -> None:
    content, config = os.urandom(3 << 20), Descriptor(CONFIGS[0], digest_of(b""), 0)
    layer = Descriptor(LAYERS[0], digest_of(content), len(content))
    manifest = ImageManifest(config, (layer,), b"{}", OCI_MANIFEST, digest_of(b"{}"))
    image, engine = NamedImage(parse("app:1"), manifest, None, config.digest), Reader(layer)
    depot = Depot(tmp_path / "depot", KEPT)
    with depot.use([layer.digest]), depot.fetching(layer.digest, layer.size) as partial:
        assert partial is not None
        async with feed.feeding(
            engine, depot, image, ["id"], [layer], feed.EngineDisk(tmp_path, 0), containerd_store=False
        ) as feeding:
            for have in (1_500_000, layer.size):
                partial.put(partial.have, content[partial.have : have])
                async with asyncio.timeout(60):
                    while len(engine.got) < have:  # noqa: ASYNC110 -- in a thread
                        await asyncio.sleep(0.01)
                assert bytes(engine.got) == content[:have]
            assert partial.finish(depot.path(layer.digest), threading.Event()) == "done"
            assert await feeding.taken() == {layer.digest}


class Stranger(FakeEngine):
    """One that is told of an address on this machine, where somebody else asks."""

    def __init__(self, layers: Collection[str]) -> None:
        super().__init__(FakeDocker())
        self.answers: list[int] = []
        self._layers = layers

    async def info(self) -> EngineInfo:
        return replace(await super().info(), machine="x86_64", name=os.uname().nodename, root_dir="/")

    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        address, _, rest = ref.partition("/")
        if not rest.startswith("dom0-loaded:"):
            raise NotFound(f"image {ref}: unknown")
        repository, _, tag = rest.partition(":")
        wrong = {"Authorization": "Basic ZG9tMDpub3RoaW5n"}
        blobs = [f"/v2/{repository}/blobs/{each}" for each in (digest_of(b""), *self._layers)]
        for path in ("/v2/", f"/v2/{repository}/manifests/{tag}", *blobs):
            for headers in ({}, wrong):
                self.answers.append(await asyncio.to_thread(_status, address, path, headers))
        async for progress in super().pull_image(ref):
            yield progress


def _status(address: str, path: str, headers: Mapping[str, str]) -> int:
    with contextlib.closing(http.client.HTTPConnection(address)) as connection:
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status


async def test_nobody_else_on_the_machine_is_given_a_layer(tmp_path: Path) -> None:
    require(debian_registry.missing(), "tests of a registry")
    (tmp_path / "registry").mkdir()
    with DebianRegistry(tmp_path / "registry") as registry:
        registry.content.image("team/app", "1", [BASE])
        blobs = registry.content.directory.rglob("data")
        engine, name = Stranger([digest_of(blob.read_bytes()) for blob in blobs]), f"{registry.host}/team/app:1"
        await pull(engine, Depot(tmp_path / "depot", KEPT), parse(name), meter=Meter())
    assert len(engine.answers) > 10
    assert set(engine.answers) == {401}
    assert (await engine.image(name)).tags == (name,)
