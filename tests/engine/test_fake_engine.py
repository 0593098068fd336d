"""What only the fake Engine can do: the stage that a test sets, and the deaths that it stages."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, PortBinding, RestartPolicy
from dom0.engine.values import Health, State
from dom0.errors import EngineError, EngineUnreachable, NotFound
from dom0.testing import virtual_time
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import Call, FakeEngine, Hook, Killed

IMAGE = "busybox:test"
RUNS = ContainerBody(image=IMAGE, cmd=("sleep", "1000"))
ALWAYS_RUNS = replace(RUNS, host_config=HostConfig(restart_policy=RestartPolicy(name="always")))


@pytest.fixture
def docker() -> FakeDocker:
    docker = FakeDocker()
    docker.images.add(IMAGE)
    return docker


@pytest.fixture
def engine(docker: FakeDocker) -> FakeEngine:
    return FakeEngine(docker)


def killer(name: str) -> Hook:
    def kill(call: Call) -> None:
        if call.name == name:
            raise Killed(call)

    return kill


async def test_who_dies_before_a_call_has_done_nothing(docker: FakeDocker, engine: FakeEngine) -> None:
    engine.before = killer("create_container")
    with pytest.raises(Killed):
        await engine.create_container("one", RUNS)
    assert docker.containers == {}


async def test_who_dies_after_a_call_has_done_it_without_knowing(docker: FakeDocker, engine: FakeEngine) -> None:
    engine.after = killer("create_container")
    with pytest.raises(Killed):
        await engine.create_container("one", RUNS)
    assert [container.name for container in docker.containers.values()] == ["one"]


async def test_hooks_see_every_call_and_belong_to_one_client(docker: FakeDocker, engine: FakeEngine) -> None:
    seen: list[Call] = []
    engine.before = seen.append
    person = FakeEngine(docker)
    await person.create_container("one", RUNS)
    await engine.start_container("one")
    await engine.containers()
    with pytest.raises(NotFound):
        async for _ in engine.pull_image("nothing"):
            pass
    assert seen == [Call("start_container", "one"), Call("containers"), Call("pull_image", "nothing")]


async def test_a_call_takes_the_time_it_is_told_to(docker: FakeDocker, engine: FakeEngine) -> None:
    engine.latency = lambda call: 3600.0 if call.name == "create_container" else 0.0
    began = virtual_time.now()
    async with asyncio.TaskGroup() as tasks:
        for name in ("one", "two"):
            tasks.create_task(engine.create_container(name, RUNS))
    assert 3600.0 <= virtual_time.now() - began < 3601.0


async def test_probes_fail_as_often_as_told_whoever_asks(docker: FakeDocker, engine: FakeEngine) -> None:
    check = HealthConfig(test=("CMD", "redis-cli", "ping"), interval=10_000_000_000)
    body = replace(RUNS, healthcheck=check, labels={"dom0.service": "web"})
    docker.fail_probes("web", first=2)
    one = await engine.create_container("one", body)
    await engine.start_container(one)
    assert (await engine.exec(one, ["redis-cli", "ping"])).exit_code == 1
    await asyncio.sleep(11)
    assert (await engine.container(one)).health is Health.STARTING
    await asyncio.sleep(10)
    assert (await engine.container(one)).health is Health.HEALTHY
    docker.fail_probes("web")
    await asyncio.sleep(30)
    assert (await engine.container(one)).health is Health.UNHEALTHY
    docker.pass_probes("web")
    assert (await engine.exec(one, ["redis-cli", "ping"])).exit_code == 0


async def test_a_start_is_refused_until_it_is_allowed(docker: FakeDocker, engine: FakeEngine) -> None:
    docker.refuse_start("one", "no space left on device")
    await engine.create_container("one", RUNS)
    with pytest.raises(EngineError, match="no space left on device"):
        await engine.start_container("one")
    assert (await engine.container("one")).error == "no space left on device"
    docker.allow_start("one")
    await engine.start_container("one")


async def test_a_port_of_the_host_can_be_taken(docker: FakeDocker, engine: FakeEngine) -> None:
    docker.occupy_port(80)
    host = HostConfig(port_bindings={"80/tcp": (PortBinding(host_ip="127.0.0.1", host_port="80"),)})
    await engine.create_container("one", replace(RUNS, host_config=host))
    with pytest.raises(EngineError, match="port is already allocated"):
        await engine.start_container("one")
    docker.release_port(80)
    await engine.start_container("one")


async def test_a_process_ends_when_told(docker: FakeDocker, engine: FakeEngine) -> None:
    await engine.create_container("one", ALWAYS_RUNS)
    await engine.start_container("one")
    docker.exit("one", 9)
    waiting = await engine.container("one")
    assert (waiting.state, waiting.exit_code) == (State.RESTARTING, 9)
    await asyncio.sleep(1)
    assert (await engine.container("one")).state is State.RUNNING


async def test_backoff_doubles_up_to_a_minute_and_is_forgotten_after_a_good_run(
    docker: FakeDocker, engine: FakeEngine
) -> None:
    await engine.create_container("one", ALWAYS_RUNS)
    await engine.start_container("one")
    pauses = []
    for ran in [0.0] * 12 + [11.0, 0.0]:
        await asyncio.sleep(ran)
        docker.exit("one", 1)
        ended = virtual_time.now()
        while (found := await engine.container("one")).state is not State.RUNNING:  # noqa: ASYNC110 -- virtual time
            await asyncio.sleep(0.01)
        pauses.append(round(found.started - ended, 1))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0, 0.1, 0.2]


async def test_an_engine_that_is_stopped_answers_nobody(docker: FakeDocker, engine: FakeEngine) -> None:
    docker.stop_engine()
    with pytest.raises(EngineUnreachable):
        await engine.info()
    docker.start_engine()
    await engine.info()


@pytest.mark.parametrize("stop_first", [True, False])
async def test_stop_and_die_come_in_either_order(docker: FakeDocker, engine: FakeEngine, stop_first: bool) -> None:
    docker.stop_before_die = stop_first
    await engine.create_container("one", RUNS)
    await engine.start_container("one")
    await engine.stop_container("one", timeout=0)
    told = [e.action for e in await engine.past_events(since=0.0, until=virtual_time.now()) if e.type == "container"]
    assert told[-2:] == (["stop", "die"] if stop_first else ["die", "stop"])


async def test_other_processes_and_programs_are_told_by_top(docker: FakeDocker, engine: FakeEngine) -> None:
    docker.processes["one"] = ("sshd: me@pts/0",)
    await engine.create_container("one", RUNS)
    await engine.start_container("one")
    assert await engine.top("one") == ("sleep 1000", "sshd: me@pts/0")


async def test_a_pull_brings_what_the_registry_has(docker: FakeDocker, engine: FakeEngine) -> None:
    docker.images.registry["redis:7"] = docker.images.new(labels={"a": "1"})
    assert [step.status async for step in engine.pull_image("redis:7")] == ["Pull complete"]
    assert (await engine.image("redis:7")).labels == {"a": "1"}


def test_waiting_for_what_will_never_come_ends_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "_STUCK", 0.1)

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="would wait for ever"):
        virtual_time.run(wait())
