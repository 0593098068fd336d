"""Runs the conformance suite twice: on the fake Engine, in virtual time, and on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dom0.engine.docker import DockerEngine
from dom0.testing.engine_bench import Bench, fake_bench, real_bench
from dom0.testing.virtual_time import VirtualTimeLoop

_LOOPS: dict[str, type[asyncio.AbstractEventLoop]] = {"fake": VirtualTimeLoop, "real": asyncio.SelectorEventLoop}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, type[asyncio.AbstractEventLoop]]:
    """The loop decides which Engine the bench has."""
    fixtures = getattr(item, "fixturenames", ())
    if "bench" in fixtures:
        return _LOOPS
    return {"virtual": VirtualTimeLoop} if "docker" in fixtures else {"real": asyncio.SelectorEventLoop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        loops = getattr(item, "callspec", None) and item.callspec.params.values()  # type: ignore[attr-defined]
        if "bench" in getattr(item, "fixturenames", ()) and asyncio.SelectorEventLoop in (loops or ()):
            item.add_marker(pytest.mark.engine)


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
        yield fake_bench()
        return
    host = request.getfixturevalue("engine_host")
    engine = await DockerEngine.connect(host.docker_host)
    try:
        yield real_bench(host, engine)
    finally:
        await engine.close()
