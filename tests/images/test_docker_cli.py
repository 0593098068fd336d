"""`docker build` and `docker compose build` on Engines with either image store."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dom0.engine.docker import DockerEngine
from dom0.images import docker_cli
from dom0.run import capture
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


async def hands_all_to_buildx() -> bool:
    """Compose does since 2.37, at once; it then names a service only where there are several."""
    version = (await capture(["docker", "compose", "version", "--short"])).stdout
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (2, 37)


async def test_the_same_build_is_the_same_image(engine: DockerEngine, context: Path) -> None:
    recipe = docker_cli.DockerBuild("own", context, "own:1", labels={"a": "b"})
    await docker_cli.build(recipe, docker_cli.silent)
    first = await engine.image("own:1")
    await docker_cli.build(recipe, docker_cli.silent)
    assert (await engine.image("own:1")).id == first.id
    assert (await engine.image(first.id)).labels["a"] == "b"


async def test_the_same_build_of_a_service_is_the_same_image(engine: DockerEngine, context: Path) -> None:
    services = {"web": {"image": "box-web", "build": {"context": str(context)}}}
    file = json.dumps({"name": "box", "services": services}).encode()
    await docker_cli.compose_build(file, "box", docker_cli.silent, no_cache=False, pull=False)
    first = await engine.image("box-web")
    await docker_cli.compose_build(file, "box", docker_cli.silent, no_cache=False, pull=False)
    assert (await engine.image("box-web")).id == first.id


async def test_a_build_tells_its_steps_while_it_works_and_of_a_failure_all_that_the_step_printed(
    engine: DockerEngine, context: Path
) -> None:
    said: list[str] = []
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo good\nRUN seq 1 300; exit 3\n")
    services = {"web": {"image": "box-web", "build": {"context": str(context)}}}
    file = json.dumps({"name": "box", "services": services}).encode()
    with pytest.raises(docker_cli.BuildFailed) as of_service:
        await docker_cli.compose_build(file, "box", said.append, no_cache=False, pull=False)
    step = "2/3" if await hands_all_to_buildx() else "web 2/3"
    assert f"box: [{step}] RUN echo good" in said
    with pytest.raises(docker_cli.BuildFailed) as of_machine:
        await docker_cli.build(docker_cli.DockerBuild("own", context, "own:1"), said.append)
    assert "own: [3/3] RUN seq 1 300; exit 3" in said
    for failed in (of_service, of_machine):
        numbers = re.findall(r"^\d+\.\d+ (\d+)$", failed.value.message, re.MULTILINE)
        assert numbers == [str(number) for number in range(1, 301)]
        assert "exit code: 3" in failed.value.message.splitlines()[-1]
