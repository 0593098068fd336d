"""The mirror as Engines and hostile clients find it: real sockets, Debian's registry behind a line that breaks."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dom0.registry import pull_through, serve
from dom0.registry.client import Registry
from dom0.registry.depot import Depot
from dom0.registry.manifest import OCI_INDEX, digest_of
from dom0.testing.debian_registry import DebianRegistry
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.hosts import Host
from dom0.testing.web_server import reply, served

Answer = tuple[int, dict[str, str], bytes]
Start = Callable[..., DebianRegistry]
LAYERS = [{"large": os.urandom(6 << 20)}, {"small": b"s"}]


@contextlib.asynccontextmanager
async def mirror(upstream: str, directory: Path) -> AsyncIterator[int]:
    """Its port. `upstream` is the registry that stands for docker.io."""
    depot, listening = Depot(directory, 1 << 30), socket.create_server(("127.0.0.1", 0))
    async with (
        asyncio.timeout(60),
        pull_through.pull_through(depot, registry=Registry(upstream)) as made,
        serve.serve(depot, listening, mirror=made.answer),
    ):
        yield listening.getsockname()[1]


async def ask(port: int, target: str, method: str = "GET", **headers: str) -> Answer:
    def talk() -> Answer:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=50)) as connection:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    return await asyncio.to_thread(talk)


async def layer_of(port: int, tag: str = "1") -> dict[str, Any]:
    """The largest of it."""
    _, _, index = await ask(port, f"/v2/library/app/manifests/{tag}")
    digest = json.loads(index)["manifests"][0]["digest"]
    _, _, manifest = await ask(port, f"/v2/library/app/manifests/{digest}")
    layers: list[dict[str, Any]] = json.loads(manifest)["layers"]
    return max(layers, key=lambda layer: int(layer["size"]))


def image(registry: DebianRegistry) -> str:
    """The digest of its index."""
    platforms = ["linux/amd64", "linux/arm64"]
    return registry.content.image("library/app", "1", LAYERS, platforms=platforms).digest


async def test_manifests_and_blobs_come_through(debian: Start, tmp_path: Path) -> None:
    registry = debian()
    digest = image(registry)
    async with mirror(registry.host, tmp_path / "depot") as port:
        assert (await ask(port, "/v2/"))[::2] == (200, b"{}")
        status, headers, index = await ask(port, "/v2/library/app/manifests/1?ns=docker.io")
        assert (status, headers["Content-Type"], digest_of(index)) == (200, OCI_INDEX, digest)
        assert headers["Docker-Content-Digest"] == digest
        status, headers, body = await ask(port, "/v2/library/app/manifests/1", "HEAD")
        assert (status, headers["Content-Length"], body) == (200, str(len(index)), b"")
        layer = await layer_of(port)
        target, size = f"/v2/library/app/blobs/{layer['digest']}", layer["size"]
        status, headers, body = await ask(port, target, "HEAD")
        assert (status, headers["Content-Length"], body) == (200, str(size), b"")
        status, headers, tail = await ask(port, target, Range=f"bytes={size - 1000}-")
        assert (status, headers["Content-Range"]) == (206, f"bytes {size - 1000}-{size - 1}/{size}")
        status, _, body = await ask(port, target)
        assert (status, digest_of(body), body[-1000:]) == (200, layer["digest"], tail)


async def test_over_a_line_that_breaks_a_blob_comes_in_one_answer(debian: Start, tmp_path: Path) -> None:
    registry = debian()
    image(registry)
    faults = Faults(every_bytes=500_000, rate=20e6)
    async with (
        FaultProxy(int(registry.host.rpartition(":")[2]), faults) as line,
        mirror(f"127.0.0.1:{line.port}", tmp_path / "depot") as port,
    ):
        layer = await layer_of(port)
        target = f"/v2/library/app/blobs/{layer['digest']}"
        answers = await asyncio.gather(*(ask(port, target) for _ in range(3)))
        assert {digest_of(body) for _, _, body in answers} == {layer["digest"]}
        assert line.cuts >= 5
        assert line.sent <= 1.05 * layer["size"] + 100_000


async def test_without_the_registry_what_a_tag_named_last_is_given(
    debian: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_through, "MOST_WAITED", 0.5)
    registry = debian()
    digest = image(registry)
    async with mirror(registry.host, tmp_path / "depot") as port:
        layer = await layer_of(port)
        target = f"/v2/library/app/blobs/{layer['digest']}"
        await ask(port, target)
    registry.__exit__()
    async with mirror(registry.host, tmp_path / "depot") as port:  # a later process
        for wanted in ("1", digest):
            status, headers, _ = await ask(port, f"/v2/library/app/manifests/{wanted}")
            assert (status, headers["Docker-Content-Digest"]) == (200, digest)
        assert digest_of((await ask(port, target))[2]) == layer["digest"]
        assert (await ask(port, "/v2/library/app/manifests/2"))[0] == 503


async def test_a_tag_is_what_the_registry_says_now(debian: Start, tmp_path: Path) -> None:
    registry = debian()
    image(registry)
    async with mirror(registry.host, tmp_path / "depot") as port:
        await ask(port, "/v2/library/app/manifests/1")
        moved = registry.content.image("library/app", "1", [{"new": b"n"}])
        assert (await ask(port, "/v2/library/app/manifests/1"))[1]["Docker-Content-Digest"] == moved.digest


async def test_nobody_gets_what_came_with_a_login(debian: Start, tmp_path: Path) -> None:
    registry = debian()
    image(registry)
    async with mirror(registry.host, tmp_path / "depot") as port:
        layer = await layer_of(port)
        depot = Depot(tmp_path / "depot", 1 << 30)
        with depot.use([layer["digest"]]), depot.fetching(layer["digest"], layer["size"]) as partial:
            assert partial is not None
            partial.put(0, b"secret")
            assert (await ask(port, f"/v2/library/app/blobs/{layer['digest']}"))[0] == 404


async def test_what_needs_a_login_is_not_there_and_no_login_is_passed_on(debian: Start, tmp_path: Path) -> None:
    registry = debian(login=True)
    image(registry)
    async with mirror(registry.host, tmp_path / "depot") as port:
        found = await ask(port, "/v2/library/app/manifests/1", Authorization="Basic Z3Vlc3Q6b25seS1hLXRlc3Q=")
        assert found[0] == 404
    assert not any("guest" in line for line in registry.log)


@pytest.mark.parametrize(
    "target",
    [
        "/v2",
        "/v2/_catalog",
        "/v2/library/app/tags/list",
        "/v2/library/app/manifests/",
        "/v2/library/app/manifests/..",
        "/v2/library/app/manifests/-x",
        "/v2/library%2fapp/manifests/1",
        "/v2/../blobs/manifests/1",
        "/v2/library/../../etc/manifests/1",
        "/v2/library//app/manifests/1",
        "/v2/Library/app/manifests/1",
        "/v2/library/app/manifests/1?ns=registry.example",
        "/v2/169.254.169.254/app/manifests/x@y",
        f"/v2/library/app/blobs/sha256:{'ab' * 32}",
        f"/v2/library/app/blobs/sha512:{'ab' * 64}",
        "/v2/library/app/blobs/1",
        "/v2/library/app/blobs/uploads/",
        f"/v2/{'a/' * 200}a/manifests/1",
    ],
)
async def test_nothing_else_is_asked_of_the_registry(tmp_path: Path, target: str) -> None:
    async with served(lambda _: reply(200)) as upstream, mirror(upstream.netloc, tmp_path / "depot") as port:
        assert (await ask(port, target))[0] == 404
    assert not upstream.asked


async def test_a_manifest_is_given_with_whatever_its_type_is(tmp_path: Path) -> None:
    async with (
        served(lambda _: reply(200, b"{}", Content_Type="a\xe9")) as upstream,
        mirror(upstream.netloc, tmp_path / "depot") as port,
    ):
        status, headers, body = await ask(port, "/v2/library/app/manifests/1")
        assert (status, headers["Content-Type"].encode("latin-1"), body) == (200, "a\xe9".encode(), b"{}")


async def test_web_pages_other_methods_and_our_own_pulls_are_refused(tmp_path: Path) -> None:
    async with served(lambda _: reply(200)) as upstream, mirror(upstream.netloc, tmp_path / "depot") as port:
        target = "/v2/library/app/manifests/1"
        assert (await ask(port, target, Host="rebound.example"))[0] == 403
        assert (await ask(port, target, **{"Sec-Fetch-Site": "cross-site"}))[0] == 403
        assert (await ask(port, target, **{"User-Agent": "dom0"}))[0] == 404
        assert (await ask(port, target, "PUT"))[0] == 405
        assert (await ask(port, "/v2/library/app/blobs/uploads/", "POST"))[0] == 405
    assert not upstream.asked


MIRROR = """
import asyncio, socket, sys
from pathlib import Path
from dom0.registry import serve
from dom0.registry.client import Registry
from dom0.registry.depot import Depot
from dom0.registry.pull_through import pull_through
from dom0.testing.fault_proxy import FaultProxy, Faults

async def main(registry):
    depot = Depot(Path("/var/lib/dom0/pull"), 1 << 30)
    faults = Faults(every_bytes=1_000_000, how="reset", rate=5e6)
    async with FaultProxy(registry, faults) as line, pull_through(
        depot, registry=Registry(f"127.0.0.1:{line.port}")
    ) as made, serve.serve(depot, socket.create_server(("127.0.0.1", 5050)), mirror=made.answer):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(line.cuts, line.sent, flush=True)

asyncio.run(main(int(sys.argv[1])))
"""


@pytest.mark.parametrize("features", [{}, {"containerd-snapshotter": True}], ids=["overlay2", "containerd"])
def test_docker_pull_and_builds_end_over_a_line_that_is_reset_again_and_again(
    registry_possible: None, fresh_host: Callable[..., Host], tmp_path: Path, features: dict[str, bool]
) -> None:
    host = fresh_host(config={"registry-mirrors": ["http://127.0.0.1:5050"], "features": features})
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM app:1\nLABEL built=yes\n")
    with DebianRegistry(tmp_path / "registry", popen=host.popen) as registry:
        layers = [{"one": os.urandom(12 << 20)}, {"two": os.urandom(4 << 20)}, {"three": b"3"}]
        digest = registry.content.image("library/app", "1", layers, platforms=["linux/amd64", "linux/arm64"]).digest
        argv = [sys.executable, "-c", MIRROR, registry.host.rpartition(":")[2]]
        with host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            host.docker("pull", "app:1")
            pulled = host.docker("image", "inspect", "--format", "{{.RepoDigests}}", "app:1").stdout
            host.docker("image", "rm", "app:1")
            host.docker("build", str(context))
            process.stdin.write(b"\n")
            process.stdin.flush()
            cuts, sent = map(int, process.stdout.readline().split())
    assert pulled == f"[app@{digest}]\n"
    assert cuts >= 10
    assert sent <= 1.1 * (16 << 20)  # what a reset finds in the buffers is lost


AGENT = """
import asyncio, sys
from functools import partial
from dom0.agent.image_server import ImageServer
from dom0.agent.progress import Changes
from dom0.plan.desired import Sharing
from dom0.registry import pull_through
from dom0.registry.client import Registry

hub, *mirrors = sys.argv[1:]
pull_through.pull_through = partial(pull_through.pull_through, registry=Registry(hub))

async def main():
    changed = Changes()
    server = ImageServer(changed, Sharing, mirrors=mirrors)
    running = asyncio.create_task(server.run())
    await changed.until(lambda: server.status is not None)
    print(server.status.mirror, flush=True)
    await running

asyncio.run(main())
"""
OF_BASE_OS = Path(__file__).parents[2] / "os/tree/etc/docker/daemon.json"


@pytest.mark.parametrize("features", [{}, {"containerd-snapshotter": True}], ids=["overlay2", "containerd"])
def test_the_engine_of_the_base_os_pulls_through_the_agent_and_without_it_from_the_hub(
    registry_possible: None, fresh_host: Callable[..., Host], tmp_path: Path, features: dict[str, bool]
) -> None:
    """The second mirror stands for the hub: an Engine asks one after the other."""
    hub = "127.0.0.1:5051"
    (mirror,) = json.loads(OF_BASE_OS.read_bytes())["registry-mirrors"]
    host = fresh_host(config={"registry-mirrors": [mirror, f"http://{hub}"], "features": features})
    depot = host.state / "pull"

    def pull_and_build(tag: str) -> None:
        host.docker("pull", f"app:{tag}")
        host.docker("image", "rm", f"app:{tag}")
        context = tmp_path / tag
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM app:{tag}\nLABEL built={tag}\n")
        host.docker("build", str(context))

    with DebianRegistry(tmp_path / "registry", config={"http": {"addr": hub}}, popen=host.popen) as registry:
        layers = {tag: {tag: os.urandom(1 << 20)} for tag in ("alone", "through")}
        for tag, layer in layers.items():
            registry.content.image("library/app", tag, [layer])
        pull_and_build("alone")
        assert not depot.exists()
        argv = [sys.executable, "-c", AGENT, hub, mirror]
        with host.popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline().decode() == f"{urlsplit(mirror).netloc}\n"
            pull_and_build("through")
            process.terminate()
        sizes = [blob.have for blob in Depot(depot, 1 << 30).blobs()]
        assert sum(size > 1 << 20 for size in sizes) == 1
