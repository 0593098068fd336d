"""Whatever changes on the way or in the depot: the Engine gets the image that the digest names, or none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.engine.docker import DockerEngine
from dom0.engine.values import EngineInfo
from dom0.errors import Dom0Error, EngineUnreachable
from dom0.http.client import Readable
from dom0.images.pull import KEPT, pull
from dom0.registry.depot import Depot
from dom0.registry.fetch import Terms
from dom0.registry.manifest import CONFIGS, LAYERS, OCI_INDEX, OCI_MANIFEST, digest_of
from dom0.registry.progress import Meter
from dom0.registry.reference import parse
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host
from dom0.testing.mutations import mutated
from dom0.testing.tars import tar_of
from dom0.testing.web_server import Asked, reply, served, stretch

MUTATIONS = int(os.environ.get("DOM0_TEST_MUTATIONS", "20"))
TARS = [tar_of({name: Random(name).randbytes(size)}) for name, size in (("one", 70_000), ("two", 300))]  # noqa: S311
PACKED = [gzip.compress(tar, 1, mtime=0) for tar in TARS]
_RANGED = re.compile(r"/cdn/(sha256:[0-9a-f]{64})\?sig=1")


class Content:
    """Of a registry that sends to a CDN for blobs: an image for two platforms."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.types: dict[str, str] = {}  # of manifests
        layers = [self._put(packed, LAYERS[1]) for packed in PACKED]
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar) for tar in TARS]}
        listed = []
        for architecture in ("amd64", "arm64"):
            config = {"os": "linux", "architecture": architecture, "config": {}, "rootfs": rootfs}
            described = self._put(json.dumps(config).encode(), CONFIGS[0])
            manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": layers}
            platform = {"os": "linux", "architecture": architecture}
            listed.append({**self._put(json.dumps(manifest).encode(), OCI_MANIFEST), "platform": platform})
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        self.top: str = self._put(json.dumps(index).encode(), OCI_INDEX)["digest"]

    def _put(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[digest], self.types[digest] = content, media_type
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def answer(self, asked: Asked) -> bytes:
        digest = asked.path.rpartition("/")[2]
        if asked.path == "/v2/":
            return reply(200)
        if _RANGED.fullmatch(asked.target) and digest in self.blobs:
            return stretch(asked, self.blobs[digest])
        if digest in self.blobs and "/manifests/" in asked.path:
            return reply(200, self.blobs[digest], Content_Type=self.types[digest], Docker_Content_Digest=digest)
        if digest in self.blobs and "/blobs/" in asked.path:
            return reply(307, Location=f"/cdn/{digest}?sig=1")
        return reply(404)


class Loading(FakeEngine):
    """Of an archive that breaks off it loads nothing. `archives`: all others, whatever is in them."""

    def __init__(self) -> None:
        super().__init__(FakeDocker())
        self.archives: list[bytes] = []

    async def info(self) -> EngineInfo:
        return replace(await super().info(), machine="x86_64")

    async def load_image(self, archive: Readable, *, name: str) -> None:
        read = io.BytesIO()
        try:
            while piece := archive.read(1 << 20):
                read.write(piece)
        except OSError as error:
            raise EngineUnreachable(f"image {name}: the connection to the Docker Engine broke: {error}") from error
        self.archives.append(read.getvalue())
        self.docker.images.load(read)


async def loaded(netloc: str, depot: Path, top: str, patience: float) -> list[bytes]:
    engine, name = Loading(), parse(f"{netloc}/team/app@{top}")
    with contextlib.suppress(Dom0Error):  # the fake Engine has no registry to ask for the name at the end
        await pull(engine, Depot(depot, KEPT), name, terms=Terms(patience=patience), meter=Meter())
    return engine.archives


Load = Callable[[str, Path, str, float], Awaitable[list[Any]]]
"""What images the Engine has of a registry's, by that depot, and has not any more afterwards."""


async def ends_of(load: Load, tmp_path: Path, count: int) -> dict[bool, int]:
    """How often there was an image and none, after so many changes; never another one."""
    random, content, answers = Random(11), Content(), list[bytes]()  # noqa: S311 -- no secret
    change_at = -1  # which answer is another one

    def answer(asked: Asked) -> bytes:
        said = content.answer(asked)
        answers.append(said)
        return mutated(said, [said, *answers], random) if len(answers) == change_at else said

    good, depot = tmp_path / "good", tmp_path / "depot"
    ends = {True: 0, False: 0}
    async with served(answer) as server:
        (right,) = await load(server.netloc, good, content.top, 0.0)
        asked = len(answers)
        for _ in range(count):
            shutil.rmtree(depot, ignore_errors=True)
            answers.clear()
            change_at = random.randrange(1, asked + 1)
            if random.randrange(3) == 0:  # the depot is another one, and the line is good
                change_at = -1
                shutil.copytree(good, depot)
                files = sorted(path for path in depot.rglob("*") if path.is_file() and path.stat().st_size)
                path = random.choice(files)
                path.write_bytes(mutated(path.read_bytes(), [file.read_bytes() for file in files], random))
            found = await load(server.netloc, depot, content.top, random.choice((0.0, 0.0, 0.0, 1.0)))
            assert found in ([], [right])
            ends[bool(found)] += 1
    return ends


async def test_whatever_changes_the_engine_gets_that_image_or_none(tmp_path: Path) -> None:
    ends = await ends_of(loaded, tmp_path, MUTATIONS)
    logging.getLogger(__name__).info("%d images, %d refused", ends[True], ends[False])


@pytest.mark.parametrize("store", [OWN_STORE, CONTAINERD_STORE], ids=["own", "containerd"])
def test_whatever_changes_a_real_engine_has_that_image_or_none(
    fresh_host: Callable[..., Host], store: dict[str, Any]
) -> None:
    """It takes layers while others come, and asks the registry itself for the name at the end."""
    host = fresh_host(config=store)
    argv = [sys.executable, __file__, str(max(10, MUTATIONS // 20))]
    said = host.run(argv, timeout=20 + MUTATIONS)
    logging.getLogger(__name__).info("%s", said.stdout)


async def _in_a_real_engine(count: int) -> None:
    engine = await DockerEngine.connect("unix:///var/run/docker.sock")
    before = {image.id for image in await engine.images()}

    async def load(netloc: str, depot: Path, top: str, patience: float) -> list[Any]:
        with contextlib.suppress(Dom0Error):
            name = parse(f"{netloc}/team/app@{top}")
            await pull(engine, Depot(depot, KEPT), name, terms=Terms(patience=patience), meter=Meter())
        found = []
        for image in await engine.images():
            if image.id not in before:
                found.append((image.id, await content_of(image.id)))
                await engine.remove_image(image.id)
        return found

    print(await ends_of(load, Path("/var/lib/dom0"), count))  # noqa: T201
    await engine.close()


async def content_of(image_id: str) -> bytes:
    """Its files, from a container of it."""
    script = (
        'made=$(docker create "$0" none); for f in one two; do docker cp "$made:/$f" - | tar -xO; done; '
        'docker rm "$made" >/dev/null'
    )
    process = await asyncio.create_subprocess_exec("sh", "-ec", script, image_id, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]


if __name__ == "__main__":
    asyncio.run(_in_a_real_engine(int(sys.argv[1])))
