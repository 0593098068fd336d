"""The bench of the Engine's conformance suite: what its tests need of an Engine, the fake or a real one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from dom0.engine.bodies import ContainerBody
from dom0.engine.docker import DockerEngine
from dom0.engine.protocol import Engine
from dom0.engine.values import Container, Event, State
from dom0.errors import EngineError
from dom0.testing import virtual_time
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.hosts import Host

IMAGE = "busybox:test"
UNREACHABLE_IMAGE = "127.0.0.1:9/nothing:1"
DEADLINE = 90.0  # seconds for anything to happen
HANDLES_TERM = ("sh", "-c", "trap 'exit 5' TERM; touch /ready; while :; do sleep 0.05; done")
IGNORES_TERM = ("sleep", "1000")  # process 1 without a trap


@dataclass(frozen=True)
class Bench:
    engine: Engine
    restart_engine: Callable[[], Awaitable[None]]  # as a service manager does
    kill_engine: Callable[[], Awaitable[None]]
    start_engine: Callable[[], Awaitable[None]]
    pause: Callable[[str], Awaitable[None]]  # a container, as a person does; so `kill`, by name and signal
    kill: Callable[[str, str], Awaitable[None]]
    now: Callable[[], float]  # the Engine's clock
    began: float  # by it; a real Engine still knows of the tests before

    async def create(self, name: str, *command: str, labels: dict[str, str] | None = None, **body: Any) -> str:
        """A container of busybox:test; `host` becomes HostConfig, other keywords are keys of the create body."""
        host = body.pop("host", {})
        asked = {"Image": IMAGE, "Cmd": command, "Labels": labels or {}, "HostConfig": host, **body}
        return await self.engine.create_container(name, msgspec.convert(asked, ContainerBody))

    async def run(self, name: str, *command: str, **body: Any) -> str:
        container_id = await self.create(name, *command, **body)
        await self.engine.start_container(container_id)
        if command == HANDLES_TERM:
            await self.until_succeeds(container_id, "test", "-f", "/ready")
        return container_id

    async def until(self, ref: str, condition: Callable[[Container], bool]) -> Container:
        """Look until `condition` holds."""
        async with asyncio.timeout(DEADLINE):
            while not condition(container := await self.engine.container(ref)):  # noqa: ASYNC110 -- events are under test
                await asyncio.sleep(0.01)
        return container

    def events(self, **filters: list[str]) -> contextlib.aclosing[AsyncGenerator[Event, None]]:
        """Everything since the test began, and what comes."""
        return contextlib.aclosing(self.engine.events(since=self.began, filters=filters))

    async def past_events(self) -> tuple[Event, ...]:
        return await self.engine.past_events(since=self.began, until=self.now())

    async def until_state(self, ref: str, state: State) -> Container:
        return await self.until(ref, lambda container: container.state is state)

    async def until_logged(self, text: str, ref: str, **options: Any) -> None:
        """A busy Engine may note a line later than the end of what printed it. Raises TimeoutError."""
        async with asyncio.timeout(DEADLINE):
            while await self.engine.logs(ref, **options) != text:  # noqa: ASYNC110 -- a log tells no one
                await asyncio.sleep(0.01)

    async def until_succeeds(self, ref: str, *argv: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while (await self.engine.exec(ref, argv)).exit_code != 0:  # noqa: ASYNC110 -- a file tells no one
                await asyncio.sleep(0.01)


def fake_bench() -> Bench:
    docker = FakeDocker()
    docker.images.add(IMAGE)
    docker.images.registry[UNREACHABLE_IMAGE] = EngineError("no route", transient=True)

    engine = FakeEngine(docker)

    async def restart() -> None:
        docker.restart_engine()

    async def crash() -> None:
        docker.stop_engine(crash=True)

    async def start() -> None:
        docker.start_engine()

    async def pause(name: str) -> None:
        docker.pause(docker.container(name))

    async def kill(name: str, signal: str) -> None:
        await engine.kill_container(name, signal=signal)

    return Bench(engine, restart, crash, start, pause, kill, virtual_time.now, virtual_time.now())


def real_bench(host: Host, engine: DockerEngine, *, prefix: str = "") -> Bench:
    """`prefix`: what `host` has in front of the names that `engine` says."""

    async def restart() -> None:
        await asyncio.to_thread(host.restart_engine)

    async def crash() -> None:
        await asyncio.to_thread(host.kill_engine)

    async def start() -> None:
        await asyncio.to_thread(host.start_engine)

    async def pause(name: str) -> None:
        await asyncio.to_thread(host.docker, "pause", prefix + name)

    async def kill(name: str, signal: str) -> None:
        await asyncio.to_thread(host.docker, "kill", f"--signal={signal}", prefix + name)

    return Bench(engine, restart, crash, start, pause, kill, time.time, time.time())
