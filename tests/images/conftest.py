"""An Engine with the images that dom0 builds on, for tests that build with it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dom0.engine.docker import DockerEngine
from dom0.testing.hosts import Host


@pytest.fixture
def host(chain_images: None, engine_host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """It is the one that DOCKER_HOST names."""
    monkeypatch.setenv("DOCKER_HOST", engine_host.docker_host)
    return engine_host


@pytest.fixture
async def engine(host: Host) -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.connect()
    yield engine
    await engine.close()
