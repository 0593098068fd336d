"""Runs the conformance suite three times: on the fake Engine, in virtual time, on a real one, and through the socket of
a scope that may have whatever can be granted.

What a scope is refused by design is in scoped.toml: those tests fail there, and one that does not fails the run.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dom0.engine.docker import DockerEngine
from dom0.errors import EngineError
from dom0.testing import scopes
from dom0.testing.engine_bench import Bench, fake_bench, real_bench
from dom0.testing.hosts import Host
from dom0.testing.virtual_time import VirtualTimeLoop

SCOPED = Path(__file__).with_name("scoped.toml")
GRANTS = """
images: {use: ["*"]}
capabilities: [NET_ADMIN, NET_RAW]
ports: ["1-65535", "1-65535/udp"]
"""


class ScopedLoop(asyncio.SelectorEventLoop):
    """Says by its type that the Engine is behind a scoped socket."""


_LOOPS: dict[str, type[asyncio.AbstractEventLoop]] = {
    "fake": VirtualTimeLoop,
    "real": asyncio.SelectorEventLoop,
    "scoped": ScopedLoop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, type[asyncio.AbstractEventLoop]]:
    """The loop decides which Engine the bench has."""
    fixtures = getattr(item, "fixturenames", ())
    if "bench" in fixtures:
        return _LOOPS
    return {"virtual": VirtualTimeLoop} if "docker" in fixtures else {"real": asyncio.SelectorEventLoop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    refused = {test: why for why, said in tomllib.loads(SCOPED.read_text()).items() for test in said["tests"]}
    for item in items:
        callspec = getattr(item, "callspec", None)
        loops = set() if callspec is None else {value for value in callspec.params.values() if isinstance(value, type)}
        if "bench" not in getattr(item, "fixturenames", ()) or VirtualTimeLoop in loops:
            continue
        item.add_marker(pytest.mark.engine)
        name = item.name.replace("[scoped]", "").replace("scoped-", "")
        if ScopedLoop in loops and name in refused:
            item.add_marker(pytest.mark.xfail(reason=refused[name], raises=(AssertionError, EngineError), strict=True))


@pytest.fixture(scope="session")
def scoped_socket(session_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with scopes.served(session_host, tmp_path_factory.mktemp("scope"), GRANTS) as path:
        yield path


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualTimeLoop):
        yield fake_bench()
        return
    host = request.getfixturevalue("engine_host")
    address, prefix = host.docker_host, ""
    if isinstance(loop, ScopedLoop):
        address, prefix = f"unix://{request.getfixturevalue('scoped_socket')}", "guest."
    engine = await DockerEngine.connect(address)
    try:
        yield real_bench(host, engine, prefix=prefix)
    finally:
        await engine.close()
