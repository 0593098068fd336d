"""The Engine, as commands ask it: a command that must start at once reads single things of it here.

Those that can wait for asyncio and h11 to load use engine/docker.py, by `on_engine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from dom0.cli import quick_engine

if TYPE_CHECKING:
    from dom0.engine.docker import DockerEngine

T = TypeVar("T")


class Mount(msgspec.Struct, rename="pascal"):
    source: str = ""
    destination: str = ""


class Config(msgspec.Struct, rename="pascal"):
    user: str = ""
    image: str = ""
    labels: dict[str, str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    env: list[str] | None = None
    exposed_ports: dict[str, Any] | None = None


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    links: list[str] | None = None  # "/redis:/web/cache"
    network_mode: str = ""


class ContainerState(msgspec.Struct, frozen=True, rename="pascal"):
    running: bool = False
    paused: bool = False


class InspectedContainer(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    config: Config
    host_config: HostConfig = HostConfig()
    mounts: list[Mount] = []
    state: ContainerState = ContainerState()


class ListedContainer(msgspec.Struct, rename="pascal"):
    id: str
    names: list[str]
    state: str
    labels: dict[str, str] = {}


class EngineVersion(msgspec.Struct, rename="pascal"):
    version: str


def container(name: str, *, within: float = quick_engine.ANSWER_WITHIN) -> InspectedContainer | None:
    found = inspect(name, within=within)
    return found if found and found.name == f"/{name}" else None  # the Engine takes the start of an ID too


def inspect(container_id: str, *, within: float = quick_engine.ANSWER_WITHIN) -> InspectedContainer | None:
    return _get(f"/containers/{quote(container_id, safe='')}/json", InspectedContainer, within)


def containers(*labels: str) -> list[ListedContainer]:
    """All containers that carry every label (`key` or `key=value`), stopped ones too."""
    filters = msgspec.json.encode({"label": labels}).decode()
    listed = _get(f"/containers/json?{urlencode({'all': '1', 'filters': filters})}", list[ListedContainer])
    assert listed is not None
    return listed


def engine_version() -> str:
    found = _get("/version", EngineVersion)
    assert found is not None
    return found.version


def _get(target: str, document: type[T], within: float = quick_engine.ANSWER_WITHIN) -> T | None:
    """The document at `target`, None if there is no such thing. Raises EngineError."""
    data = quick_engine.read(quick_engine.send(target, within=within), target)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=document)
    except msgspec.DecodeError as error:
        raise quick_engine.not_understood(error) from error


@asynccontextmanager
async def connected() -> AsyncIterator[DockerEngine]:
    """Raises EngineError."""
    from dom0.engine.docker import DockerEngine

    engine = await DockerEngine.connect()
    try:
        yield engine
    finally:
        await engine.close()


def on_engine(work: Callable[[DockerEngine], Awaitable[T]]) -> T:
    """Do `work` with the Engine. Raises EngineError, and what `work` raises."""
    import asyncio

    async def run() -> T:
        async with connected() as engine:
            return await work(engine)

    return asyncio.run(run())
