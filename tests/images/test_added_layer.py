"""One more layer on an image that containerd keeps."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.engine.docker import DockerEngine
from dom0.images import added_layer
from dom0.testing.busybox import IMAGE
from dom0.testing.hosts import CONTAINERD_STORE, Host

LABELS = {"a": "ä b"}


def layer(file: Path, content: bytes) -> Path:
    with tarfile.open(file, "w") as tar:
        entry = tarfile.TarInfo("told")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return file


async def test_what_the_image_below_is_made_of_is_asked_once(
    fresh_host: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once more where what is remembered of it is damaged."""
    host = fresh_host(config=CONTAINERD_STORE)
    monkeypatch.setenv("DOCKER_HOST", host.docker_host)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = await DockerEngine.connect(host.docker_host)
    try:
        below = await engine.image(IMAGE)

        async def add(tag: str, content: bytes) -> None:
            file = layer(tmp_path / "layer.tar", content)
            made = await added_layer.add(engine, below.id, file, tag=tag, labels=LABELS, created=1)
            image = await engine.image(tag)
            assert (image.id, image.labels) == (made, below.labels | LABELS)
            assert image.layers[:-1] == below.layers

        await add("own:1", b"first")
        with monkeypatch.context() as without_docker:
            without_docker.setenv("PATH", "/nowhere")
            await add("own:2", b"second")
        (remembered,) = (tmp_path / "cache/dom0").iterdir()
        remembered.write_bytes(remembered.read_bytes().replace(b'"config":"', b'"config":"eA'))
        await add("own:3", b"third")
        said = [host.docker("run", "--rm", f"own:{number}", "cat", "/told").stdout for number in (1, 2, 3)]
        assert said == ["first", "second", "third"]
        host.docker("rmi", "--force", IMAGE)  # what both are made of stays
        host.docker("save", "--output", str(tmp_path / "own.tar"), "own:1")
    finally:
        await engine.close()
