"""`docker build` and `docker compose build` on Engines with either image store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dom0.engine.docker import DockerEngine
from dom0.images import docker
from dom0.testing.busybox import IMAGE
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host

CONFIGS: dict[str, Mapping[str, Any]] = {"the Engine's store": OWN_STORE, "containerd's store": CONTAINERD_STORE}


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
async def engine(
    request: pytest.FixtureRequest, fresh_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerEngine]:
    host = fresh_host(config=request.param)
    monkeypatch.setenv("DOCKER_HOST", host.docker_host)
    engine = await DockerEngine.connect()
    yield engine
    await engine.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo made >/made\n")
    return tmp_path


async def test_the_same_build_is_the_same_image(engine: DockerEngine, context: Path) -> None:
    recipe = docker.Recipe("own", context, "own:1", labels={"a": "b"})
    await docker.build(recipe)
    first = await engine.image("own:1")
    await docker.build(recipe)
    assert (await engine.image("own:1")).id == first.id
    assert (await engine.image(first.id)).labels["a"] == "b"


async def test_the_same_build_of_a_service_is_the_same_image(engine: DockerEngine, context: Path) -> None:
    services = {"web": {"image": "box-web", "build": {"context": str(context)}}}
    file = json.dumps({"name": "box", "services": services}).encode()
    await docker.compose_build(file, "box", no_cache=False, pull=False)
    first = await engine.image("box-web")
    await docker.compose_build(file, "box", no_cache=False, pull=False)
    assert (await engine.image("box-web")).id == first.id
