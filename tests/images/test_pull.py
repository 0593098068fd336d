"""Images from a registry into a real Engine, beside what its own pull makes of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest
from msgspec.structs import replace

from dom0.durable import Unwritable
from dom0.engine.docker import DockerEngine
from dom0.engine.values import EngineInfo, Image
from dom0.errors import Denied, EngineError, EngineUnreachable, Final, Unwelcome
from dom0.images import pull as pull_module
from dom0.images.pull import KEPT, Pulled, find_images, is_insecure, pull
from dom0.registry import serve
from dom0.registry.depot import Depot, Need
from dom0.registry.fetch import GaveUp, Terms
from dom0.registry.manifest import CONFIGS, LAYERS, OCI_INDEX, OCI_MANIFEST, digest_of
from dom0.registry.progress import Meter
from dom0.registry.reference import parse
from dom0.registry.verify import PublicKey
from dom0.testing import debian_registry, signatures
from dom0.testing.debian_registry import PASSWORD, USER, DebianRegistry, written
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import Call, FakeEngine
from dom0.testing.fake_stores import Images
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.hosts import Host
from dom0.testing.possible import require
from dom0.testing.signatures import Keys
from dom0.testing.tars import tar_of
from dom0.testing.web_server import reply, served

LAYER = gzip.compress(bytes(1024))  # an archive of nothing
LIST = ("image", "ls", "--no-trunc", "--format={{.Repository}} {{.Tag}} {{.Digest}} {{.ID}}")
BASE, MIDDLE = {"base": os.urandom(1 << 20)}, {"middle": b"m"}


def names(host: Host) -> list[str]:
    """The Engine has no order for images of one time."""
    return sorted(host.docker(*LIST).stdout.splitlines())


@pytest.fixture(scope="module")
def registry_possible() -> None:
    require(debian_registry.missing(), "tests of a registry")


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def near(registry_possible: None, engine_host: Host, tmp_path: Path) -> Iterator[DebianRegistry]:
    """A registry that the Engine reaches, which has the same address as it has for dom0 there."""
    (tmp_path / "near").mkdir()
    with DebianRegistry(tmp_path / "near", popen=engine_host.popen) as registry:
        yield registry


@pytest.fixture
def far(registry_possible: None, tmp_path: Path) -> Iterator[DebianRegistry]:
    """A registry that the Engine does not reach."""
    (tmp_path / "far").mkdir()
    with DebianRegistry(tmp_path / "far") as registry:
        yield registry


@pytest.fixture
async def engine(engine_host: Host) -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.connect(engine_host.docker_host)
    yield engine
    await engine.close()


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot", KEPT)


async def pulled(engine: DockerEngine, depot: Depot, name: str) -> Pulled:
    return await pull(engine, depot, parse(name), meter=Meter())


def dom0_pull(host: Host, *arguments: str) -> Any:
    """What `dom0 image pull` says there."""
    said = host.run([sys.executable, "-m", "dom0", "image", "pull", "--json", *arguments])
    return json.loads(said.stdout)


async def test_what_another_machine_has_comes_from_there(
    engine: DockerEngine, engine_host: Host, depot: Depot, far: DebianRegistry, tmp_path: Path
) -> None:
    far.content.image("team/app", "1", [BASE, MIDDLE], platforms=["linux/amd64", "linux/arm64"])
    made = await pulled(engine, depot, f"{far.host}/team/app:1")
    engine_host.docker("image", "rm", "--force", made.id)
    listening = socket.create_server(("127.0.0.1", 0))
    peer = f"127.0.0.1:{listening.getsockname()[1]}"
    async with serve.serve(depot, listening):
        other = Depot(tmp_path / "other", KEPT)
        again = await pull(engine, other, parse(f"{far.host}/team/app:1"), peers=[peer], meter=Meter())
    assert (again.id, again.received, again.from_peers) == (made.id, made.received, made.received)
    assert made.from_peers == 0


def test_a_registry_that_sends_layers_as_a_whole_only_and_never_all_of_one_costs_three_times_the_image_an_hour(
    near: DebianRegistry, engine_host: Host, tmp_path: Path
) -> None:
    """Whoever asks, and however often: the Engine's own pull is among it."""
    near.content.image("team/app", "1", [{"large": os.urandom(4 << 20)}])
    size = sum(blob.stat().st_size for blob in near.content.directory.rglob("data"))
    faults = json.dumps({"every_bytes": 2 << 20, "ranges": False})  # one connection carries 1 to 3 MiB
    argv = [sys.executable, "-m", "dom0.testing.fault_proxy", near.host.rpartition(":")[2], faults]
    with engine_host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as line:
        assert line.stdin
        assert line.stdout
        name = f"127.0.0.1:{line.stdout.readline().decode().strip()}/team/app:1"
        pull = [sys.executable, "-m", "dom0", "image", "pull", name]
        env = {"DOM0_STATE": str(tmp_path / "state"), "XDG_STATE_HOME": str(tmp_path / "state")}
        first, *others = (engine_host.run(pull, check=False, env=env).stderr for _ in range(5))
        line.stdin.close()
        sent = int(line.stdout.readline())
    assert "layers as a whole only" in first
    assert "the Docker Engine's own pull is tried" in first
    assert "was cut off" in first.splitlines()[-2]
    assert all("nor could the Docker Engine pull it, which may try again in " in each for each in others)
    assert size < sent < 3 * size


GZIPS = """
import gzip, http.server, sys, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        accept = {"Accept": ", ".join(self.headers.get_all("Accept") or ["*/*"])}
        with urllib.request.urlopen(urllib.request.Request(sys.argv[1] + self.path, headers=accept)) as answer:
            body, kind, digest = answer.read(), answer.headers["Content-Type"], answer.headers["Docker-Content-Digest"]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if "/blobs/" in self.path:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_GET

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


def test_what_a_registry_packs_once_more_unasked_the_engine_pulls_and_why_is_said(
    near: DebianRegistry, engine_host: Host
) -> None:
    near.content.image("team/app", "1", [BASE])
    argv = [sys.executable, "-c", GZIPS, f"http://{near.host}"]
    with engine_host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout
        name = f"127.0.0.1:{server.stdout.readline().decode().strip()}/team/app:1"
        said = engine_host.run([sys.executable, "-m", "dom0", "image", "pull", name], check=False)
        server.kill()
    assert "as gzip, unasked; the Docker Engine's own pull is tried" in said.stderr
    is_there = name in engine_host.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").stdout
    assert is_there == (said.code == 0)
    assert is_there or "nor can the Docker Engine pull it" in said.stderr  # as one with containerd's store says


def facts(host: Host, name: str) -> dict[str, Any]:
    """What a pull decides of an image."""
    document = json.loads(host.docker("image", "inspect", name).stdout)[0]
    return {key: document[key] for key in ("Id", "RepoTags", "RepoDigests", "Architecture", "RootFS", "Config")}


def test_a_pull_makes_the_image_that_docker_makes(engine_host: Host, near: DebianRegistry) -> None:
    index = near.content.image("team/app", "1", [BASE, MIDDLE], platforms=["linux/amd64", "linux/arm64"])
    near.content.image("team/one", "1", [MIDDLE])
    arm = ("--platform", "linux/arm64")
    for name, options in (
        ("team/one:1", ()),
        ("team/app:1", ()),
        (f"team/app:1@{index.digest}", ()),
        ("team/app:1", arm),
        (f"team/app@{index.digest}", arm),
    ):
        reference = f"{near.host}/{name}"
        engine_host.docker("pull", *options, reference)
        made_by_docker = facts(engine_host, reference)
        listed = names(engine_host)
        engine_host.docker("image", "rm", "--force", made_by_docker["Id"])
        (document,) = dom0_pull(engine_host, *options, reference)
        assert facts(engine_host, reference) == made_by_docker
        assert names(engine_host) == listed
        assert (document["id"], document["warning"]) == (made_by_docker["Id"], "")
        assert "Image is up to date" in engine_host.docker("pull", *options, reference).stdout
        engine_host.docker("image", "rm", "--force", made_by_docker["Id"])


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_an_image_of_a_registry_that_wants_a_login_has_all_its_names(
    registry_possible: None, engine_host: Host, tmp_path: Path, by: str
) -> None:
    config, directory = tmp_path / "docker" / "config.json", tmp_path / "private"
    config.parent.mkdir()
    directory.mkdir()
    with DebianRegistry(directory, login=True, popen=engine_host.popen) as registry:
        top = registry.content.image("team/app", "1", [MIDDLE])
        given = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config.write_text(json.dumps({"auths": {registry.host: {"auth": given}}}))
        name = f"{registry.host}/team/app@{top.digest}" if by == "digest" else f"{registry.host}/team/app:1"
        pull = [sys.executable, "-m", "dom0", "image", "pull", "--json", name]
        (document,) = json.loads(engine_host.run(["env", f"DOCKER_CONFIG={config.parent}", *pull]).stdout)
        assert document["warning"] == ""
        assert facts(engine_host, name)["RepoDigests"] == [f"{registry.host}/team/app@{top.digest}"]


def test_layers_that_the_engine_has_do_not_come(engine_host: Host, near: DebianRegistry) -> None:
    near.content.image("team/base", "1", [BASE])
    near.content.image("team/app", "1", [BASE, MIDDLE])
    dom0_pull(engine_host, f"{near.host}/team/base:1")
    for blob in (engine_host.state / "pull").glob("?" * 64):
        shutil.rmtree(blob)
    (document,) = dom0_pull(engine_host, f"{near.host}/team/app:1")
    assert (document["layers"], document["layers_here"]) == (2, 1)
    assert document["received"] < len(BASE["base"]) < document["size"]
    (again,) = dom0_pull(engine_host, f"{near.host}/team/app:1")
    assert (again["received"], again["layers_here"]) == (0, 2)


async def test_without_the_registry_the_image_has_its_name_and_no_digest(
    engine: DockerEngine, depot: Depot, far: DebianRegistry
) -> None:
    far.content.image("team/app", "1", [BASE])
    done = await pulled(engine, depot, f"{far.host}/team/app:1")
    image = await engine.image(f"{far.host}/team/app:1")
    assert image.id == done.id
    if (await engine.info()).containerd_store:  # it needs nobody for that
        assert (image.digests, done.warning) == ((f"{far.host}/team/app@{done.digest}",), "")
    else:
        assert image.digests == ()
        assert "without a digest" in done.warning


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_pull_that_is_ended_goes_on_from_there(
    engine_host: Host, far: DebianRegistry, tmp_path: Path, number: signal.Signals
) -> None:
    size = 4 << 20
    far.content.image("team/app", "1", [{"large": os.urandom(size)}])
    environment = engine_host.environment() | {
        "DOCKER_HOST": engine_host.docker_host,
        "DOM0_STATE": str(tmp_path),
        "HOME": str(tmp_path),
    }
    faults = Faults(every_bytes=1 << 20, how="reset", rate=4 << 20)
    async with FaultProxy(int(far.host.rpartition(":")[2]), faults) as line:
        argv = [sys.executable, "-m", "dom0", "image", "pull", "--json", f"127.0.0.1:{line.port}/team/app:1"]

        async def start() -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(*argv, env=environment, stdout=PIPE, stderr=PIPE)

        ended = await start()
        async with asyncio.timeout(60):
            while line.sent < size // 2:  # noqa: ASYNC110 -- the proxy counts and tells nobody
                await asyncio.sleep(0.01)
        ended.send_signal(number)
        _, said = await ended.communicate()
        (partial,) = [blob for blob in Depot(tmp_path / "pull", KEPT).blobs() if not blob.is_whole]
        assert 0 < partial.have < size
        done = await start()
        output, errors = await done.communicate()
    assert done.returncode == 0, errors
    (document,) = json.loads(output)
    assert document["received"] <= document["size"] - partial.have
    if number is signal.SIGINT:
        assert ended.returncode == 130
        assert b"have come and are kept" in said


async def test_a_blob_that_was_damaged_on_the_disk_comes_again(
    engine: DockerEngine, depot: Depot, far: DebianRegistry
) -> None:
    far.content.image("team/app", "1", [BASE])
    name = f"{far.host}/team/app:1"
    await engine.remove_image((await pulled(engine, depot, name)).id)
    largest = max(depot.blobs(), key=lambda blob: blob.have)
    path = depot.path(largest.digest)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = await pulled(engine, depot, name)
    assert done.received == len(content)
    assert (await engine.image(name)).id == done.id
    assert path.read_bytes() == content


@pytest.mark.parametrize("diff_ids", [[], [f"sha256:{'0' * 64}"]], ids=["of no layer", "of another layer"])
async def test_an_image_with_the_config_of_another_one_is_refused(
    engine_host: Host, engine: DockerEngine, depot: Depot, far: DebianRegistry, diff_ids: list[str]
) -> None:
    name = f"{far.host}/team/app:1"
    engine_host.run(["docker", "import", "-", name], stdin=bytes(10240))
    before = {(image.id, image.tags) for image in await engine.images()}
    content = far.content
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    layer = content.blob("team/app", LAYER)
    described = content.blob("team/app", json.dumps(config).encode(), CONFIGS[0])
    content.manifest(
        "team/app",
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": written(described),
            "layers": [written(layer)],
        },
        "1",
    )
    with pytest.raises((Final, EngineError)):
        await pulled(engine, depot, name)
    assert {(image.id, image.tags) for image in await engine.images()} == before


async def test_of_an_image_that_is_not_signed_with_the_key_nothing_is_fetched(
    depot: Depot, far: DebianRegistry, tmp_path: Path
) -> None:
    require(signatures.missing(), "tests of signatures")
    keys = Keys(tmp_path)
    index = far.content.image("team/app", "1", [MIDDLE], platforms=["linux/amd64", "linux/arm64"])
    name = parse(f"{far.host}/team/app:1")
    engine = FakeEngine(FakeDocker())
    key = PublicKey("cosign.pub", keys.public.read_bytes())
    with pytest.raises(Final, match=f"{index.digest} is not signed with the key of cosign.pub"):
        await pull(
            engine,
            depot,
            name,
            keys=[key],
            platform="linux/amd64",
            meter=Meter(),
        )
    assert list(depot.blobs()) == []
    keys.cosign(f"{far.host}/team/app@{index.digest}")
    with contextlib.suppress(EngineError):  # the fake one loads what dom0 builds only
        await pull(
            engine,
            depot,
            name,
            keys=[key],
            platform="linux/amd64",
            meter=Meter(),
        )
    assert len(list(depot.blobs())) == 4  # config and layer, index and manifest


class InContainerd(Images):
    """As its store keeps them: an ID is the digest of the manifest or index."""

    def load(self, archive: IO[bytes]) -> None:
        super().load(archive)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            top, saved = (json.load(tar.extractfile(name)) for name in ("index.json", "manifest.json"))  # type: ignore[arg-type]
        loaded = self.all.pop(f"sha256:{Path(saved[0]['Config']).name}")
        image_id = top["manifests"][0]["digest"]
        tags = {*loaded.tags, *(self.all[image_id].tags if image_id in self.all else ())}
        self.all[image_id] = replace(loaded, id=image_id, tags=tuple(sorted(tags)))


class Store(FakeEngine):
    """An Engine with facts of a test's own."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(FakeDocker())
        self._facts = facts
        if facts.get("containerd_store"):
            self.docker.images = InContainerd(self.docker.events, self.docker.new_id)

    async def info(self) -> EngineInfo:
        return replace(await super().info(), machine="x86_64", **self._facts)

    def on(self, name: str, action: Callable[[], None]) -> Callable[[Call], None]:
        return lambda call: action() if call.name == name else None


def fail(error: BaseException) -> NoReturn:
    raise error


ENDS = [EngineError("unpack"), EngineUnreachable("broke"), asyncio.CancelledError()]


@pytest.mark.parametrize("error", ENDS, ids=lambda each: type(each).__name__)
async def test_a_load_that_fails_leaves_no_name_that_was_not_there(
    depot: Depot, far: DebianRegistry, error: BaseException
) -> None:
    top = far.content.image("team/app", "1", [MIDDLE])
    name = f"{far.host}/team/app:1"
    engine = Store(containerd_store=True)
    engine.after = engine.on("load_image", lambda: fail(error))
    for each in (name, f"{name}@{top.digest}"):
        with pytest.raises(type(error)):
            await pull(engine, depot, parse(each), meter=Meter())
        assert engine.docker.images.all == {}
    before = engine.docker.images.add(name)
    with pytest.raises(type(error)):
        await pull(engine, depot, parse(name), meter=Meter())
    assert [(image.id, image.tags) for image in engine.docker.images.all.values()] == [(before, (name,))]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_what_was_tagged_while_the_image_came_keeps_its_name_when_the_load_fails(
    depot: Depot, far: DebianRegistry, moment: str
) -> None:
    far.content.image("team/app", "1", [MIDDLE])
    name = f"{far.host}/team/app:1"
    engine = Store(containerd_store=True)
    engine.docker.images.add(name)
    his = engine.docker.images.add("his:1")

    def tag() -> None:
        engine.docker.images.tag(his, name)

    def tag_and_fail() -> None:
        if moment == "after":
            tag()
        fail(EngineError("unpack"))

    if moment == "before":
        engine.before = engine.on("load_image", tag)
    engine.after = engine.on("load_image", tag_and_fail)
    with pytest.raises(EngineError, match="unpack"):
        await pull(engine, depot, parse(name), meter=Meter())
    assert (await engine.image(name)).id == his
    assert "his:1" in (await engine.image(his)).tags


async def test_an_image_whose_load_was_killed_is_loaded_again(depot: Depot, far: DebianRegistry) -> None:
    top = far.content.image("team/app", "1", [MIDDLE])
    name = f"{far.host}/team/app:1"
    engine = Store(containerd_store=True)
    await pull(engine, depot, parse(name), meter=Meter())
    loads: list[None] = []
    engine.before = engine.on("load_image", lambda: loads.append(None))
    await pull(engine, depot, parse(name), meter=Meter())
    assert len(loads) == 0
    engine.docker.images.tag(top.digest, f"dom0-loaded:{top.digest[7:19]}")
    await pull(engine, depot, parse(name), meter=Meter())
    assert len(loads) == 1
    assert (await engine.image(name)).tags == (name,)


async def test_an_image_that_was_there_under_another_name_stays_when_its_load_fails(
    depot: Depot, far: DebianRegistry
) -> None:
    index = far.content.image("team/app", "1", [MIDDLE], platforms=["linux/amd64", "linux/arm64"])
    name = f"{far.host}/team/app:1"
    engine = Store(containerd_store=True)
    engine.docker.images.all[index.digest] = Image(id=index.digest, tags=("his:1",))
    engine.after = engine.on("load_image", lambda: fail(EngineError("unpack")))
    with pytest.raises(EngineError, match="unpack"):
        await pull(engine, depot, parse(name), platform="linux/arm64", meter=Meter())
    assert [image.tags for image in engine.docker.images.all.values()] == [("his:1",)]


async def test_of_another_platform_that_is_here_nothing_is_taken_for_the_engines_own(
    depot: Depot, far: DebianRegistry
) -> None:
    tops = {of: far.content.image("team/app", of, [{of: b""}], platforms=[f"linux/{of}"]) for of in ("arm64", "amd64")}
    manifests = [{**written(top), "platform": {"os": "linux", "architecture": of}} for of, top in tops.items()]
    far.content.manifest("team/app", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, "1")
    engine, name = Store(containerd_store=True), parse(f"{far.host}/team/app:1")
    other = await pull(engine, depot, name, platform="linux/arm64", meter=Meter())
    layers = (await engine.image(other.id)).layers
    own = await pull(engine, depot, name, meter=Meter())
    assert (own.id, own.layers_here, own.received) == (other.id, 0, own.size)
    assert (await engine.image(own.id)).layers != layers
    again = await pull(engine, depot, name, platform="linux/amd64", meter=Meter())
    assert (again.received, again.layers_here) == (0, 1)


class Measured(Depot):
    """`need`: what there had to be room for."""

    def make_space(self, need: Need, engine: Path) -> None:
        self.need = need


async def test_there_has_to_be_room_once_for_each_blob_and_not_for_what_has_come_of_it(
    far: DebianRegistry, tmp_path: Path
) -> None:
    depot, engine = Measured(tmp_path / "depot", 1), Store(name=os.uname().nodename, root_dir=str(tmp_path))
    packed = os.urandom(1000)
    layer = far.content.blob("team/app", packed)
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"diff_ids": [layer.digest] * 2}}
    described = far.content.blob("team/app", json.dumps(config).encode(), CONFIGS[0])
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": written(described)}
    far.content.manifest("team/app", document | {"layers": [written(layer)] * 2}, "1")
    with depot.use([layer.digest]), depot.fetching(layer.digest, layer.size) as come:
        assert come is not None
        come.find(0)
        come.put(0, packed[:400])
    os.utime(depot.path(layer.digest).parent, (0, 0))  # nobody has used it for years, and the depot is full
    done = await pull(engine, depot, parse(f"{far.host}/team/app:1"), meter=Meter())
    assert depot.need == Need(depot=600, engine=2000)
    assert (done.size, done.received) == (described.size + 1000, described.size + 600)


async def test_what_is_rotten_at_one_mirror_comes_from_the_next_one(
    registry_possible: None, depot: Depot, tmp_path: Path
) -> None:
    with DebianRegistry(tmp_path / "rotten") as rotten, DebianRegistry(tmp_path / "right") as right:
        for each in (rotten, right):
            each.content.image("library/redis", "7", [BASE])
        (path,) = [path for path in rotten.content.directory.rglob("data") if path.stat().st_size > len(BASE["base"])]
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        engine = Store(mirrors=(f"http://{rotten.host}", f"http://{right.host}"))
        done = await pull(engine, depot, parse("redis:7"), meter=Meter())
    assert (await engine.image("redis:7")).id == done.id
    assert done.size < done.received < 3 * done.size


class Forgetful(Depot):
    """On a disk that brings back what was removed."""

    def discard(self, digest: str) -> None:
        return


async def test_a_config_that_is_damaged_whenever_it_is_read_ends_the_pull(far: DebianRegistry, tmp_path: Path) -> None:
    far.content.image("team/app", "1", [MIDDLE])
    depot, name = Forgetful(tmp_path / "depot", KEPT), parse(f"{far.host}/team/app:1")
    image_id = (await pull(Store(), depot, name, meter=Meter())).id
    path = depot.path(image_id)
    path.write_bytes(bytes(path.stat().st_size))
    async with asyncio.timeout(60):
        with pytest.raises(Unwritable, match=f"{path}: the disk does not keep"):
            await pull(Store(), depot, name, meter=Meter())


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (b"[]", "manifest: makes no sense"),
        (json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(), "manifest: nothing for"),
    ],
)
async def test_what_is_wrong_with_a_manifest_is_said_of_the_image(depot: Depot, document: bytes, what: str) -> None:
    kind = {"Content_Type": OCI_INDEX}
    async with served(lambda asked: reply(200) if asked.path == "/v2/" else reply(200, document, **kind)) as server:
        with pytest.raises(Final, match=f"^{server.netloc}/team/app:1: {what}"):
            await pull(Store(), depot, parse(f"{server.netloc}/team/app:1"), meter=Meter())


def of_zstd(registry: DebianRegistry, blocks: bytes, content: bytes) -> str:
    """The name of an image with one layer, which has those blocks and becomes `content`."""
    layer = registry.content.blob("team/app", b"\x28\xb5\x2f\xfd\x00\x58" + blocks, LAYERS[2])
    rootfs = {"type": "layers", "diff_ids": [digest_of(content)]}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs, "history": []}
    described = registry.content.blob("team/app", json.dumps(config).encode(), CONFIGS[0])
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": written(described), "layers": [written(layer)]}
    registry.content.manifest("team/app", document, "1")
    return f"{registry.host}/team/app:1"


async def test_a_layer_that_becomes_far_too_much_is_named_and_no_engine_gets_it(
    depot: Depot, far: DebianRegistry
) -> None:
    """Of 40 kB, and of 1.25 GiB of zeros; the Engine of the test says of no disk that it is here."""
    engine, said = Store(), list[str]()
    name = of_zstd(far, b"\x02\x00\x10\x00" * 10_000 + b"\x01\x00\x00", b"")
    refused = f"^{name}: layer sha256:[0-9a-f]{{64}}: with it the image becomes more than 10.. MiB when it is unpacked$"
    with pytest.raises(Unwelcome, match=refused) as error:
        await pull(engine, depot, parse(name), meter=Meter(), say=said.append)
    assert "docker pull" in error.value.hint
    assert await engine.images() == ()
    assert said == []


async def test_a_load_that_fails_waits_for_nobody_who_still_reads_a_layer(
    depot: Depot, far: DebianRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    far.content.image("team/app", "1", [MIDDLE])
    layer = depot.path(digest_of(gzip.compress(tar_of(MIDDLE), 1, mtime=0)))
    opened, failed, seen = Path.open, threading.Event(), list[bool]()

    def on_a_slow_disk(path: Path, *how: Any, **more: Any) -> Any:
        if path == layer:
            seen.append(failed.wait(10))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", on_a_slow_disk)
    engine = Store()
    engine.before = engine.on("load_image", lambda: fail(EngineError("unpack")))
    try:
        with pytest.raises(EngineError, match="unpack"):
            await pull(engine, depot, parse(f"{far.host}/team/app:1"), meter=Meter())
        assert seen == []
    finally:
        failed.set()


async def test_what_zstd_has_packed_is_loaded(engine: DockerEngine, depot: Depot, far: DebianRegistry) -> None:
    tar = tar_of({"text": b"hello\n"})
    name = of_zstd(far, (1 | len(tar) << 3).to_bytes(3, "little") + tar, tar)
    made = await pulled(engine, depot, name)
    assert (await engine.image(name)).layers == (digest_of(tar),)
    assert made.layers == 1


async def test_what_wants_another_login_is_not_asked_for_by_the_engine_too(
    registry_possible: None, depot: Depot, tmp_path: Path
) -> None:
    said = list[str]()
    with DebianRegistry(tmp_path, login=True) as registry, pytest.raises(Denied, match=r"wants a login$"):
        await pull(Store(), depot, parse(f"{registry.host}/team/app:1"), meter=Meter(), say=said.append)
    assert said == []


async def test_a_registry_that_never_answers_is_given_up_when_patience_ends(depot: Depot) -> None:
    engine, terms = FakeEngine(FakeDocker()), Terms(patience=0.3)
    with pytest.raises(GaveUp, match="nothing else for 0") as gave_up:
        await pull(engine, depot, parse("127.0.0.1:9/team/app:1"), terms=terms, meter=Meter())
    assert await engine.images() == ()
    assert "what has come is kept" in gave_up.value.hint


INFO = EngineInfo(
    id="",
    name="",
    version="",
    api_version="",
    cpus=1,
    memory=1,
    storage_driver="",
    root_dir="",
    cgroup_version="2",
    operating_system="",
)


@pytest.mark.parametrize(
    ("registry", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.0.0.1", True),
        ("[::1]:5000", True),
        ("[2001:db8::1]", False),
        ("192.0.2.1:5000", False),
        ("own:5000", True),
        ("own", False),
        ("docker.io", False),
    ],
)
def test_a_registry_is_as_insecure_as_the_engine_says(registry: str, insecure: bool) -> None:
    info = replace(INFO, insecure_registries=("own:5000", "127.0.0.0/8", "::1/128"))
    assert is_insecure(registry, info) is insecure


def test_where_images_are_kept_is_known_as_its_store_and_whoever_looks_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn there are more directories; the last two are seen in the root container."""
    root, containerds, host = tmp_path / "docker", tmp_path / "containerd", tmp_path / "host"
    monkeypatch.setattr(pull_module, "CONTAINERDS", str(containerds))
    own, in_containerd = (replace(INFO, root_dir=str(root), containerd_store=is_so) for is_so in (False, True))
    found = []
    for made in (Path(f"{host}{containerds}"), Path(f"{host}{root}"), root, containerds, root / "containerd/daemon"):
        made.mkdir(parents=True)
        found.append([find_images(info, ends=("", str(host))) for info in (own, in_containerd)])
    assert found == [
        [None, host / containerds.relative_to("/")],
        [host / root.relative_to("/"), host / containerds.relative_to("/")],
        [root, root],
        [root, containerds],
        [root, root / "containerd/daemon"],
    ]
