"""The root container on a real Engine: run by hand or by us, replaced, and put back, while services run on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.agent import handover
from dom0.engine.docker import DockerEngine
from dom0.errors import Conflict, NotFound, RolledBack
from dom0.images.project import Options, build_project
from dom0.names import FAILED, HANDOVER, ROOT
from dom0.testing.hosts import Host
from dom0.testing.machines import docker_run

DEADLINE = 180.0
SERVICE = "box-a-1"
COMPOSE = "name: box\nservices: {a: {image: 'busybox:test', command: sleep 1000, environment: {V: '%s'}}}\n"
# What the Engine is told in other words, and means the same: an empty list by the CLI, nothing by us.
EMPTY: tuple[Any, ...] = (None, [], {})


Build = Callable[..., Any]


@pytest.fixture
def build(engine: DockerEngine, tmp_path: Path) -> Build:
    """Builds a dom0 image; `after` are lines of a Dockerfile on top. Gives its ID."""

    async def build(tag: str, *, value: str = "1", after: str = "") -> str:
        directory = tmp_path / tag
        directory.mkdir()
        (directory / "compose.yaml").write_text(COMPOSE % value)
        built = await build_project(engine, directory, silent, Options(tag=tag))
        if not after:
            return built.image.id
        above = tmp_path / f"{tag}-above"
        above.mkdir()
        (above / "Dockerfile").write_text(f"FROM {tag}\n{after}\n")
        return (await build_project(engine, above, silent, Options(tag=f"{tag}-above"))).image.id

    return build


def silent(line: str) -> None:
    return


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110 -- it is on the other side of the Engine
            await asyncio.sleep(0.1)


async def service_runs(engine: DockerEngine) -> str:
    """Wait for the service of the project; gives its container's ID."""

    async def runs() -> bool:
        try:
            return (await engine.container(SERVICE)).running
        except NotFound:
            return False

    await until(runs)
    return (await engine.container(SERVICE)).id


async def names(engine: DockerEngine) -> set[str]:
    return {row.name for row in await engine.containers() if row.name.startswith("dom0")}


async def alone(engine: DockerEngine) -> None:
    """Wait until the root container runs and nothing of a change is left."""

    async def is_over() -> bool:
        return await names(engine) == {ROOT} and (await engine.container(ROOT)).running

    await until(is_over)


async def test_typed_by_hand_it_is_the_same_container(host: Host, engine: DockerEngine, build: Build) -> None:
    image = await build("dom0:latest")
    host.run(docker_run("dom0:latest"))
    by_hand = inspect(host)
    host.docker("rm", "--force", ROOT)
    await handover.start_root(engine, image, silent)
    by_us = inspect(host)
    for part in ("Config", "HostConfig", "Mounts"):
        assert by_us[part] == by_hand[part]


def inspect(host: Host) -> dict[str, Any]:
    found = json.loads(host.docker("inspect", ROOT).stdout)[0]
    for part in ("Config", "HostConfig"):
        found[part] = {key: value for key, value in found[part].items() if value not in EMPTY}
    found["HostConfig"]["Binds"].sort()  # the docker command shuffles them
    found["Mounts"].sort(key=lambda mount: mount["Destination"])
    return dict(found)


async def test_another_image_takes_over_and_services_run_on(host: Host, engine: DockerEngine, build: Build) -> None:
    old, new = await build("old"), await build("new", after="RUN touch /new")
    await handover.start_root(engine, old, silent)
    service = await service_runs(engine)
    await handover.hand_over(engine, new, silent)
    assert (await engine.container(ROOT)).image_id == new
    assert await names(engine) == {ROOT}
    assert (await engine.container(SERVICE)).id == service
    assert (await engine.image(old)).id == old


@pytest.mark.parametrize(
    ("broken", "reason"),
    [('ENTRYPOINT ["sh", "-c", "exit 7"]', "exited with code 7"), ('ENTRYPOINT ["/none"]', "does not start")],
    ids=["ends", "cannot start"],
)
async def test_one_that_does_not_answer_is_taken_back(
    host: Host, engine: DockerEngine, build: Build, broken: str, reason: str
) -> None:
    old, new = await build("old"), await build("new", after=broken)
    await handover.start_root(engine, old, silent)
    service = await service_runs(engine)
    with pytest.raises(RolledBack, match=reason):
        await handover.hand_over(engine, new, silent)
    current = await engine.container(ROOT)
    assert (current.image_id, current.running, current.restart_policy) == (old, True, "always")
    assert (await engine.container(SERVICE)).id == service
    assert await names(engine) == {ROOT, FAILED, HANDOVER}
    problem = await handover.last_failure(engine)
    assert problem is not None
    assert reason in problem.title


async def test_a_killed_helper_is_started_again_and_goes_on(host: Host, engine: DockerEngine, build: Build) -> None:
    old, new = await build("old"), await build("new", after="RUN touch /new")
    await handover.start_root(engine, old, silent)
    await handover.start_helper(engine, new)
    killed = 0
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                helper = await engine.container(HANDOVER)
            except NotFound:
                break
            if helper.pid and killed < 4:
                host.run(["kill", "-9", str(helper.pid)], check=False)
                killed += 1
            await asyncio.sleep(0.2)
    assert killed
    await alone(engine)
    assert (await engine.container(ROOT)).image_id == new


async def test_a_crash_of_the_engine_in_the_middle_ends_with_one_dom0(
    host: Host, engine: DockerEngine, build: Build
) -> None:
    old, new = await build("old"), await build("new", after="RUN touch /new")
    await handover.start_root(engine, old, silent)
    await handover.start_helper(engine, new)
    host.kill_engine()
    host.start_engine()

    await alone(engine)
    assert (await engine.container(ROOT)).image_id == new


async def test_somebody_elses_container_of_that_name_is_left_alone(
    host: Host, engine: DockerEngine, build: Build
) -> None:
    image = await build("dom0:latest")
    host.docker("run", "--detach", "--name", ROOT, "busybox:test", "sleep", "1000")
    with pytest.raises(Conflict, match="none of dom0's"):
        await handover.start_root(engine, image, silent)
    assert (await engine.container(ROOT)).running
