"""What a new generation needs comes over a line that breaks, and goes on after whatever ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from dom0.agent.pull import pulling
from dom0.cli.report import Report
from dom0.compose.model import Project
from dom0.compose.x_dom0 import MachineSettings, PullSettings, VerifySettings
from dom0.engine.values import Image
from dom0.errors import Final
from dom0.plan.facts import ImageNeed
from dom0.registry.depot import Depot
from dom0.testing import api, debian_registry, signatures
from dom0.testing.builders import image_id
from dom0.testing.debian_registry import PASSWORD, USER, DebianRegistry
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine
from dom0.testing.possible import require
from dom0.testing.signatures import Keys

pytestmark = pytest.mark.engine

LAYERS = [{"one": os.urandom(3 << 20)}, {"two": os.urandom(2 << 20)}]
HEAD = 1024  # bytes that a request costs beside what it asks for
UNREAD = 256 << 10  # bytes that are under way when an agent is killed
WITHIN = 120.0  # seconds; a deadline, not an expectation
BROKEN = Faults(every_bytes=256 << 10, how="close", rate=2 << 20)  # which loses nothing of what was sent


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DebianRegistry]:
    """The Engine does not reach it, so nothing comes but through dom0."""
    require(debian_registry.missing(), "tests of a registry")
    (tmp_path / "registry").mkdir()
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


class Agent:
    """A process beside the test, with the Engine of a host, whose project has one image."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.state, self.run = directory / "state", directory / "run"
        self._etc = directory / "etc"
        self.log = directory / "agent.log"
        self._env = host.environment() | {
            "DOCKER_HOST": host.docker_host,
            "DOM0_STATE": str(self.state),
            "DOM0_RUN": str(self.run),
            "DOM0_ETC": str(self._etc),
            "HOME": str(directory),
        }

    @asynccontextmanager
    async def running(self, image: str, pull: str = "{}", **files: bytes) -> AsyncIterator[None]:
        """Its service has that image, and is pulled as `pull` says; the project has these files. Killed at the end."""
        self.write(image, pull, **files)
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "dom0", "agent"]
            process = await asyncio.create_subprocess_exec(*argv, env=self._env, stdin=DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            await process.wait()

    def write(self, image: str, pull: str, **files: bytes) -> None:
        """The project, which is read again by the next `up`."""
        file = self._etc / "compose.d/50-box.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (self._etc / name).write_bytes(content)
        file.write_text(
            f"name: box\nx-dom0: {{pull: {pull}}}\nservices:\n  app: {{image: '{image}', command: [/none]}}\n"
        )

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(api.request, self.run / "dom0.sock", method, path, body)

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The status for which it holds."""
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    status: dict[str, Any] = await self.ask("GET", "/v1/status")
                    if condition(status):
                        return status
                except OSError:
                    pass  # it starts
                await asyncio.sleep(0.05)


@pytest.fixture
def agent(engine_host: Host, tmp_path: Path) -> Agent:
    return Agent(engine_host, tmp_path)


def size_of(registry: DebianRegistry) -> int:
    """Of all that there is to fetch."""
    return sum(blob.stat().st_size for blob in registry.content.directory.rglob("data"))


async def until_sent(line: FaultProxy, count: float) -> None:
    async with asyncio.timeout(WITHIN):
        while line.sent < count:  # noqa: ASYNC110 -- the proxy counts and tells nobody
            await asyncio.sleep(0.01)


def free() -> str:
    """An address that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


async def answers(address: str) -> bool:
    """Whether who asks there gets anything."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.closing(writer):
        writer.write(b"GET /blobs/none HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        try:
            return bool(await reader.read())
        except ConnectionError:
            return False


def port_of(registry: DebianRegistry) -> int:
    return int(registry.host.rpartition(":")[2])


async def test_a_line_that_breaks_brings_nothing_twice(
    agent: Agent, engine_host: Host, registry: DebianRegistry
) -> None:
    registry.content.image("team/app", "1", LAYERS)
    async with FaultProxy(port_of(registry), BROKEN) as line, agent.running(f"127.0.0.1:{line.port}/team/app:1"):
        await agent.until(lambda status: status["generation"])
        assert line.cuts > 5
        assert line.sent - line.connections * HEAD < 1.005 * size_of(registry)
    assert "team/app" in engine_host.docker("image", "ls").stdout


async def test_how_far_it_is_and_why_it_waits_is_in_the_status(agent: Agent, registry: DebianRegistry) -> None:
    registry.content.image("team/app", "1", LAYERS)
    faults = Faults(every_bytes=2 << 20, rate=1 << 20, refuse=3600.0)
    async with FaultProxy(port_of(registry), faults) as line:
        name = f"127.0.0.1:{line.port}/team/app:1"
        async with agent.running(name):
            status = await agent.until(lambda status: any(pull["rate"] for pull in status["pulls"]))
            (pull,) = status["pulls"]
            assert pull["image"] == name
            assert 0 < pull["have"] < pull["size"] < size_of(registry)
            assert pull["left"] > 0
            status = await agent.until(lambda status: any(pull["waits_for"] for pull in status["pulls"]))
            (pull,) = status["pulls"]
            assert "refused" in pull["waits_for"]
            assert pull["waits_until"] > 0
            assert pull["drops"] > 0
            assert status["generation"] is None


async def test_what_cannot_end_is_said_in_the_status_and_the_engine_is_asked(
    agent: Agent, registry: DebianRegistry
) -> None:
    registry.content.image("team/app", "1", LAYERS[:1])
    faults = Faults(every_bytes=1 << 20, rate=2 << 20, ranges=False)
    async with FaultProxy(port_of(registry), faults) as line, agent.running(f"127.0.0.1:{line.port}/team/app:1"):
        await agent.until(lambda status: any("as a whole only" in pull["note"] for pull in status["pulls"]))
        status = await agent.until(lambda status: status["problems"])
        assert "nor can the Docker Engine pull it" in status["problems"][0]["title"]
        assert line.sent < 3 * size_of(registry)


async def test_an_agent_that_is_killed_goes_on_from_there(
    agent: Agent, engine_host: Host, registry: DebianRegistry
) -> None:
    registry.content.image("team/app", "1", LAYERS)
    size = size_of(registry)
    async with FaultProxy(port_of(registry), BROKEN) as line:
        name = f"127.0.0.1:{line.port}/team/app:1"
        for share in (0.2, 0.4, 0.6):
            async with agent.running(name):
                await until_sent(line, share * size)
        async with agent.running(name):
            status = await agent.until(lambda status: status["generation"])
        assert status["pulls"] == []
        assert line.sent - line.connections * HEAD < size + 3 * UNREAD
    assert "team/app" in engine_host.docker("image", "ls").stdout


async def test_abort_ends_a_pull_and_keeps_what_has_come(agent: Agent, registry: DebianRegistry) -> None:
    registry.content.image("team/app", "1", LAYERS)
    async with FaultProxy(port_of(registry), BROKEN) as line, agent.running(f"127.0.0.1:{line.port}/team/app:1"):
        await until_sent(line, 2 << 20)
        status = await agent.ask("POST", "/v1/abort")
        await agent.until(lambda status: not status["pulls"])
        come, sent = sum(blob.have for blob in Depot(agent.state / "pull", 1 << 40).blobs()), line.sent
        assert come > 1 << 20
        lines = (await agent.ask("POST", "/v1/up")).splitlines()
        assert json.loads(lines[-1])["outcome"] == "failed"  # the image has no program
        assert line.sent - sent < size_of(registry) - come + UNREAD
    assert status["generation"] is None


async def test_what_is_not_signed_is_refused_and_nothing_of_it_fetched(
    agent: Agent, registry: DebianRegistry, tmp_path: Path
) -> None:
    require(signatures.missing(), "tests of signatures")
    keys, name = Keys(tmp_path), f"{registry.host}/team/app:1"
    top = registry.content.image("team/app", "1", LAYERS)
    pull = f"{{verify: [{{match: '{registry.host}/team/*', key: team}}]}}"
    async with agent.running(name, pull, team=keys.public.read_bytes()):
        status = await agent.until(lambda status: status["problems"])
        assert f"{top.digest} is not signed with the key of team" in status["problems"][0]["title"]
        assert not any((agent.state / "pull").glob("?" * 64))
        keys.cosign(f"{registry.host}/team/app@{top.digest}")
        await agent.until(lambda status: status["generation"])


@pytest.mark.parametrize("signed", [False, True])
async def test_the_engine_may_try_what_is_refused_in_the_end_unless_it_has_to_be_signed(
    registry: DebianRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    for name in ("DOM0_STATE", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "state"))
    top, name = registry.content.image("team/app", "1", LAYERS[:1]), f"{registry.host}/team/app:1"
    largest = max(registry.content.directory.rglob("data"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    box = Project(name="box")
    if signed:
        keys = Keys(tmp_path)
        keys.cosign(f"{registry.host}/team/app@{top.digest}")
        verify = (VerifySettings(match="*/team/*", key="team.pub"),)
        machine = MachineSettings(pull=PullSettings(verify=verify))
        box = Project(name="box", machine=machine, keys={"team.pub": keys.public.read_text()})
    engine, report = FakeEngine(FakeDocker()), Report()
    engine.docker.images.registry[name] = Image(id=image_id("app"), tags=(name,))
    with pytest.raises(Final, match="2 times something else came") if signed else nullcontext():
        async with pulling(engine, box, report) as pull:
            await pull(ImageNeed(where="", ref=name), False)
    assert any(name in image.tags for image in await engine.images()) is not signed


async def test_the_login_of_whoever_calls_up_is_used_and_nowhere_kept(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    with DebianRegistry(tmp_path / "private", login=True) as registry:
        registry.content.image("team/app", "1", LAYERS[:1])
        async with agent.running(f"{registry.host}/team/app:1"):
            status = await agent.until(lambda status: status["problems"])
            assert "wants a login" in status["problems"][0]["title"]
            logins = {registry.host: {"user": USER, "password": PASSWORD}}
            answer = await agent.ask("POST", "/v1/up", {"logins": logins})
            status = await agent.ask("GET", "/v1/status")
            assert status["generation"]["number"] == 1
    kept = [path.read_bytes() for path in [agent.log, *agent.state.rglob("*.json")]]
    assert PASSWORD not in json.dumps([answer, status])
    assert not any(PASSWORD.encode() in content for content in kept)


@pytest.mark.chain
def test_a_cold_up_pulls_before_there_is_a_root_container(machine: Machine, tmp_path: Path) -> None:
    """Which would pull by itself when it has waited for a minute."""
    require(debian_registry.missing(), "tests of a registry")
    with DebianRegistry(tmp_path, popen=machine.host.popen) as near:
        near.content.image("team/app", "1", LAYERS)
        name = f"{near.host}/team/app:1"
        machine.write(
            f"""
            name: box
            x-dom0: {{rollout: {{timeout: 5s, monitor: 1s}}}}
            services: {{app: {{image: '{name}', command: [/none]}}}}
            """
        )
        said = machine.up(check=False)  # the image has no program
    lines = [line.partition("s  ")[2] for line in said.stdout.splitlines()]
    started = next(number for number, line in enumerate(lines) if line.startswith("start dom0 of image"))
    assert lines.index(f"pull {name}") < started
    noted = [line for line in machine.dom0("events").stdout.splitlines() if f"pulled {name}: " in line]
    assert len(noted) == 1
    assert "MB came in " in noted[0]
    assert machine.status()["generation"]["number"] == 1
    assert machine.image_id(name)


@pytest.mark.chain
@pytest.mark.parametrize("dockerfile", ["", "FROM dom0-base\nCOPY compose.yaml /etc/dom0/\n"])
def test_a_running_machine_pulls_with_the_login_of_whoever_calls_up(
    machine: Machine, tmp_path: Path, dockerfile: str
) -> None:
    """Whatever Docker Compose has read the project."""
    require(debian_registry.missing(), "tests of a registry")
    machine.write("{name: box, services: {app: {image: 'busybox:test', command: [sleep, '100000'], init: true}}}")
    machine.up()
    (tmp_path / "private").mkdir()
    with DebianRegistry(tmp_path / "private", login=True, popen=machine.host.popen) as near:
        near.content.image("team/app", "1", LAYERS[:1])
        name = f"{near.host}/team/app:1"
        helper = tmp_path / "docker-credential-test"
        helper.write_text(f"""#!/bin/sh\necho '{json.dumps({"Username": USER, "Secret": PASSWORD})}'\n""")
        helper.chmod(0o755)
        (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {near.host: "test"}}))
        machine.write(
            f"""
            name: box
            x-dom0: {{rollout: {{timeout: 5s, monitor: 1s}}}}
            services: {{app: {{image: '{name}', command: [/none]}}}}
            """,
            {"Dockerfile.dom0": dockerfile} if dockerfile else {},
        )
        env = {"PATH": f"{tmp_path}:{machine.host.environment()['PATH']}", "DOCKER_CONFIG": str(tmp_path)}
        machine.dom0("up", str(machine.project), env=env, check=False)  # the image has no program
    assert machine.image_id(name)
    (machine.project / "Dockerfile.dom0").unlink(missing_ok=True)


@pytest.mark.chain
def test_what_a_cold_up_pulls_is_in_the_status_before_there_is_an_agent(machine: Machine, tmp_path: Path) -> None:
    require(debian_registry.missing(), "tests of a registry")
    machine.host.clean(keep=api.images(machine.host.socket))
    faults = json.dumps({"every_bytes": 1 << 20, "refuse": 3600})
    with DebianRegistry(tmp_path, popen=machine.host.popen) as near:
        near.content.image("team/app", "1", [{"three": os.urandom(3 << 20)}])
        argv = [sys.executable, "-m", "dom0.testing.fault_proxy", str(port_of(near)), faults]
        with machine.host.popen(argv, stdin=PIPE, stdout=PIPE) as line:
            assert line.stdout
            name = f"127.0.0.1:{line.stdout.readline().decode().strip()}/team/app:1"
            machine.write(f"{{name: box, services: {{app: {{image: '{name}', command: [/none]}}}}}}")
            with machine.begin("up", str(machine.project), stdout=DEVNULL) as up:
                machine.until(lambda: machine.dom0("status", check=False).stdout)
                said = machine.dom0("status", check=False)
                up.kill()
            assert machine.dom0("status", check=False).stdout == ""
            line.kill()
    head, pulls = said.stdout.splitlines()
    assert head == "Pulling:"
    assert pulls.startswith(f"  {name}: ")
    assert "does not run here" in said.stderr
    assert said.code != 0


async def test_what_another_machine_has_come_from_there_and_is_given_on_as_the_project_says(
    engine_host: Host, registry: DebianRegistry, tmp_path: Path
) -> None:
    registry.content.image("team/app", "1", LAYERS)
    first, second = (Agent(engine_host, tmp_path / name) for name in ("first", "second"))
    async with FaultProxy(port_of(registry), Faults()) as line:
        name, first_at, second_at = f"127.0.0.1:{line.port}/team/app:1", free(), free()
        async with first.running(name, f"{{serve: {{listen: '{first_at}', allow: [127.0.0.0/8]}}}}"):
            status = await first.until(lambda status: status["sharing"])
            assert status["sharing"]["served_at"] == first_at
            engine_host.docker("image", "rm", "--force", name)
            sent = line.sent
            serve = f"serve: {{listen: '{second_at}', allow: [127.0.0.3]}}"
            async with second.running(name, f"{{peers: ['{first_at}'], {serve}}}"):
                status = await second.until(lambda status: status["sharing"] and status["sharing"]["served_at"])
                assert status["sharing"]["peers"] == [first_at]
                assert line.sent - sent < 16 << 10
                assert name in engine_host.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").stdout
                assert not await answers(second_at)
                second.write(name, f"{{peers: ['{first_at}'], serve: {{listen: '{second_at}', allow: [127.0.0.1]}}}}")
                await second.ask("POST", "/v1/up")
                status = await second.until(lambda status: status["sharing"]["allow"] == ["127.0.0.1"])
                assert await answers(second_at)
                second.write(name, f"{{serve: {{listen: '{first_at}', allow: [127.0.0.1]}}}}")
                await second.ask("POST", "/v1/up")
                status = await second.until(lambda status: status["sharing"] is None and status["problems"])
                (problem,) = (each for each in status["problems"] if each["code"] == "images-unserved")
                assert f"{first_at}: Address already in use" in problem["title"]
            async with second.running(name, f"{{peers: ['{first_at}']}}"):  # what it is at does not come from a file
                await second.until(lambda status: any(p["code"] == "images-unserved" for p in status["problems"]))
