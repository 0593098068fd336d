"""The loop on the fake Engine in virtual time: what persons, crashes and Engines do, and what is there afterwards."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from dom0.agent.reconcile import PROCESSES_EVERY
from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, Mount, NetworkBody, PortBinding, UpdateBody
from dom0.engine.values import EngineInfo, State
from dom0.plan.desired import Condition, Dependency, Desired, HealthTest, Order, Slot
from dom0.plan.memory import RefusedStep
from dom0.plan.phase import Phase
from dom0.testing.box import Box
from dom0.testing.builders import as_sent, asking, desired, slot
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

RUNNING, EXITED = State.RUNNING, State.EXITED


def with_command(of: Slot, *argv: str) -> Slot:
    return asking(of, cmd=argv)


async def test_everything_asked_for_comes_up() -> None:
    box = Box(desired(slot("db"), slot("web", depends_on=(Dependency(service="db"),))))
    async with box.running():
        await box.at_rest()
    assert box.names() == {"box-db-1": RUNNING, "box-web-1": RUNNING}


class ScopedEngine(FakeEngine):
    """As the socket of a scope: no container is created whose network is not there."""

    async def info(self) -> EngineInfo:
        return replace(await super().info(), labels=("dom0.scope=/guest",))

    async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
        assert body.networking_config is not None
        for network in body.networking_config.endpoints_config:
            self.docker.networks.find(network)
        return await super().create_container(name, body, platform=platform)


async def test_in_a_scope_no_container_is_asked_for_before_its_network() -> None:
    box = Box(desired(slot("web")))
    box.engine = ScopedEngine(box.docker)
    box.engine.latency = lambda call: 1.0 if call.name == "create_network" else 0.0
    refused: list[dict[str, RefusedStep]] = []

    def is_up() -> bool:
        refused.append(box.loop.memory.refused)
        return box.names() == {"box-web-1": RUNNING}

    async with box.running():
        await box.until(is_up)
    assert not any(refused)


async def test_a_container_is_created_while_its_network_is() -> None:
    box = Box(desired(slot("web")))
    box.engine.latency = lambda call: 1.0 if call.name == "create_network" else 0.0
    async with box.running():
        await box.until(lambda: box.names() == {"box-web-1": State.CREATED})
        assert "box_default" not in {network.name for network in await box.person.networks()}
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


class CountingEngine(FakeEngine):
    """Of containers that are created at once, the most there were: with a network that is created, and without."""

    def __init__(self, docker: FakeDocker) -> None:
        super().__init__(docker)
        self.creating = self.networks_under_way = 0
        self.most = {True: 0, False: 0}

    async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
        self.creating += 1
        beside = self.networks_under_way > 0
        self.most[beside] = max(self.most[beside], self.creating)
        try:
            return await super().create_container(name, body, platform=platform)
        finally:
            self.creating -= 1

    async def create_network(self, name: str, body: NetworkBody) -> str:
        self.networks_under_way += 1
        try:
            return await super().create_network(name, body)
        finally:
            self.networks_under_way -= 1


async def test_the_containers_that_are_created_at_once_are_limited_and_fewer_while_a_network_is() -> None:
    box = Box(desired(*(slot(f"s{number}") for number in range(12))))
    box.engine = engine = CountingEngine(box.docker)
    engine.latency = lambda call: {"create_network": 1.5, "create_container": 1.0}.get(call.name, 0.0)
    async with box.running():
        await box.at_rest()
    assert len(box.names()) == 12
    assert engine.most == {True: 1, False: 4}


async def test_what_an_image_is_called_now_is_asked_once_for_all_that_are_created_at_once() -> None:
    box = Box(desired(*(slot(name) for name in ("a", "b", "c", "d"))))
    asked: list[str] = []
    box.engine.before = lambda call: asked.append(call.what) if call.name == "image" else None
    box.engine.latency = lambda call: 0.1 if call.name == "image" else 0.0
    async with box.running():
        await box.at_rest()
    assert len(box.names()) == 4
    assert asked == ["app"]


async def test_an_image_that_the_engine_is_slow_to_tell_of_holds_no_other_up() -> None:
    box = Box(desired(slot("a", image="app"), slot("b", image="app2")))
    box.engine.latency = lambda call: 5.0 if call.name == "image" and call.what == "app" else 0.0
    async with box.running():
        await box.until(lambda: box.names() == {"box-b-1": RUNNING})
        await box.at_rest()
    assert box.names() == {"box-a-1": RUNNING, "box-b-1": RUNNING}


async def test_a_removed_container_is_made_again() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        await box.person.remove_container("box-web-1", force=True)
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


@pytest.mark.parametrize("policy", ["no", "always", "unless-stopped", "on-failure"])
async def test_a_killed_container_runs_again(policy: str) -> None:
    box = Box(desired(slot("web", restart_policy=policy)))
    async with box.running():
        await box.at_rest()
        await box.person.kill_container("box-web-1")
        await box.until(lambda: box.names() == {"box-web-1": EXITED})
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


@pytest.mark.parametrize("stop_before_die", [True, False])
async def test_what_a_person_stops_stays_stopped_until_started(stop_before_die: bool) -> None:
    box = Box(desired(slot("web", restart_policy="always")))
    box.docker.stop_before_die = stop_before_die
    async with box.running() as loop:
        await box.at_rest()
        await box.person.stop_container("box-web-1")
        await box.at_rest()
        assert box.names() == {"box-web-1": EXITED}
        assert [problem.code for problem in loop.plan.problems] == ["held"]  # type: ignore[union-attr]
        await box.person.start_container("box-web-1")
        await box.at_rest()
        await box.person.kill_container("box-web-1")
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


async def test_what_a_person_stopped_while_the_agent_was_away_stays_stopped() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
    await box.person.stop_container("box-web-1")
    async with box.running():
        await box.at_rest()
    assert box.names() == {"box-web-1": EXITED}


async def test_a_job_that_ended_while_the_agent_was_away_is_not_run_again() -> None:
    box = Box(desired(with_command(slot("job"), "sleep", "100")))
    async with box.running():
        await box.until(lambda: box.names() == {"box-job-1": RUNNING})
    await box.until(lambda: box.names() == {"box-job-1": EXITED})
    async with box.running() as loop:
        await box.at_rest()
        assert loop.plan is not None
        assert loop.plan.slots[0].phase is Phase.COMPLETED


async def test_a_completed_job_whose_container_was_pruned_is_not_run_again() -> None:
    box = Box(desired(with_command(slot("job"), "true")))
    async with box.running():
        await box.at_rest()
        await box.person.remove_container("box-job-1")
        await box.at_rest()
    async with box.running():
        await box.at_rest()
    assert box.names() == {}


@pytest.mark.parametrize("policy", ["no", "always", "unless-stopped", "on-failure"])
@pytest.mark.parametrize("crash", [True, False])
async def test_an_engine_that_restarts_gets_everything_back(policy: str, crash: bool) -> None:
    box = Box(desired(slot("web", restart_policy=policy), slot("db", restart_policy=policy)))
    async with box.running():
        await box.at_rest()
        box.docker.restart_engine(crash=crash)
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING, "box-db-1": RUNNING}


async def test_an_end_that_the_engine_missed_is_seen_and_waits_for_no_process() -> None:
    box = Box(desired(asking(slot("web"), stop_timeout=3600), slot("db")))
    async with box.running():
        await box.at_rest()
        web, db = box.docker.container("box-web-1"), box.docker.container("box-db-1")
        before = db.started
        box.processes.ended.add(web.pid)
        async with asyncio.timeout(60):
            await box.until(lambda: web.pid not in box.processes.ended and web.state is RUNNING)
        await box.at_rest()
    assert (web.state, db.started) == (RUNNING, before)


async def test_a_process_that_has_just_ended_is_the_engines_business() -> None:
    """Its event is under way: nobody restarts what a person has stopped in this moment."""
    box = Box(desired(with_command(slot("web"), "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done")))
    async with box.running():
        await box.at_rest()
        web = box.docker.container("box-web-1")
        box.processes.ended.add(web.pid)
        await asyncio.sleep(PROCESSES_EVERY)
        await box.person.stop_container("box-web-1")
        await asyncio.sleep(120)
    assert box.names() == {"box-web-1": EXITED}


async def test_who_has_the_socket_of_an_engine_that_has_ended_is_restarted_for_the_new_one() -> None:
    bound = Mount(type="bind", source="/run/docker.sock", target="/run/docker.sock")
    reader = slot("reader")
    box = Box(desired(asking(reader, host={"mounts": (bound,)}), slot("web")))
    async with box.running():
        await box.at_rest()
        containers = [box.docker.container(name) for name in ("box-reader-1", "box-web-1")]
        starts = [one.started for one in containers]
        box.processes.cut_off |= {one.pid for one in containers}
        await box.person.kill_container("box-web-1", signal="SIGHUP")  # whatever makes the loop look
        await box.until(lambda: containers[0].started != starts[0])
        await box.at_rest()
    assert containers[1].started == starts[1]


async def test_an_engine_that_is_away_for_long_is_waited_for() -> None:
    box = Box(desired(slot("web")))
    async with box.running() as loop:
        await box.at_rest()
        box.docker.stop_engine()
        await box.until(lambda: loop.trouble is not None)
        box.docker.start_engine()
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


async def test_a_crash_loop_is_given_up_and_the_next_configuration_replaces_it() -> None:
    looping = with_command(slot("web", restart_policy="always"), "false")
    box = Box(desired(looping))
    async with box.running() as loop:
        await box.at_rest()
        assert box.names() == {"box-web-1": EXITED}
        assert [problem.code for problem in loop.plan.problems] == ["crash-loop"]  # type: ignore[union-attr]
        box.aim(desired(slot("web", hash="h2")))
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


async def test_the_health_gate_does_not_wait_for_the_engine() -> None:
    """The Engine's first probe would come after 30 s."""
    db = slot("db", health=HealthTest(argv=("true",)))
    db = asking(db, healthcheck=HealthConfig(test=("CMD", "true"), interval=30_000_000_000))
    web = slot("web", depends_on=(Dependency(service="db", condition=Condition.HEALTHY),))
    box = Box(desired(web, db))
    clock = LoopSeconds()
    async with box.running():
        await box.until(lambda: box.names().get("box-web-1") == RUNNING)
    assert clock.passed() < 5.0


async def test_a_port_that_is_taken_is_told_and_tried_again() -> None:
    box = Box(desired(slot("web")))
    box.docker.refuse_start("web", "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated")
    async with box.running() as loop:
        await box.until(lambda: loop.plan is not None and bool(loop.plan.problems))
        assert loop.plan is not None
        assert [problem.code for problem in loop.plan.problems] == ["port-taken"]
        box.docker.allow_start("web")
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


@pytest.mark.parametrize(
    ("holder", "hint"), [("", "the Engine was cut off and keeps it"), ("foreign", "docker ps --filter publish=80")]
)
async def test_a_port_that_no_container_has_is_told_from_one_that_another_has(holder: str, hint: str) -> None:
    published: dict[str, tuple[PortBinding, ...]] = {"80/tcp": (PortBinding(host_port="80"),)}
    box = Box(desired(asking(slot("web"), host={"port_bindings": published})))
    if holder:
        host = HostConfig(port_bindings=published)
        await box.person.create_container(holder, ContainerBody(image="app", cmd=("sleep", "1000"), host_config=host))
        await box.person.start_container(holder)
    else:
        box.docker.occupy_port(80)
    async with box.running() as loop:
        await box.until(lambda: loop.plan is not None and bool(loop.plan.problems))
        assert loop.plan is not None
        (problem,) = loop.plan.problems
        assert (problem.code, hint in problem.hint) == ("port-taken", True)


async def test_a_rename_a_disconnect_and_an_update_by_hand_are_put_right() -> None:
    box = Box(desired(slot("web", resources={"Memory": 67108864})))
    async with box.running():
        await box.at_rest()
        await box.person.rename_container("box-web-1", "mine")
        await box.person.disconnect_network("box_default", "mine", force=True)
        await box.person.update_container("mine", UpdateBody(memory=134217728))
        await box.at_rest()
    found = await box.person.container("box-web-1")
    assert [endpoint.network for endpoint in found.endpoints] == ["box_default"]
    assert found.resources["Memory"] == 67108864


async def test_a_removed_network_and_volume_come_back() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        await box.person.remove_container("box-web-1", force=True)
        await box.person.remove_network("box_default")
        await box.at_rest()
    assert [network.name for network in await box.person.networks() if network.name == "box_default"]
    assert box.names() == {"box-web-1": RUNNING}


@pytest.mark.parametrize("order", list(Order))
async def test_a_changed_service_is_replaced_and_nothing_is_left_over(order: Order) -> None:
    box = Box(desired(slot("web", order=order)))
    async with box.running():
        await box.at_rest()
        box.aim(desired(slot("web", hash="h2", image="app2", order=order)))
        await box.at_rest()
    found = await box.person.container("box-web-1")
    assert found.labels["dom0.hash"] == "h2"
    assert box.names() == {"box-web-1": RUNNING}


async def test_what_dom0_did_not_make_is_never_touched() -> None:
    box = Box(Desired(project="box"))
    await box.person.create_container("foreign", ContainerBody(image="app", cmd=("sleep", "1000")))
    await box.person.start_container("foreign")
    async with box.running():
        await box.at_rest()
    assert box.names() == {"foreign": RUNNING}


class LoopSeconds:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def passed(self) -> float:
        return self._loop.time() - self._began


async def test_a_person_pauses_and_up_unpauses() -> None:
    box = Box(desired(slot("web")))
    async with box.running() as loop:
        await box.at_rest()
        box.docker.pause(box.docker.container("box-web-1"))
        await box.at_rest()
        await asyncio.sleep(700)
        await box.at_rest()
        assert box.names() == {"box-web-1": State.PAUSED}
        assert [problem.code for problem in loop.plan.problems] == ["held"]  # type: ignore[union-attr]
    async with box.running() as loop:
        await box.at_rest()
        assert box.names() == {"box-web-1": State.PAUSED}
        box.aim(box.desired, memory=replace(loop.memory, stopped_by_person={}), generation=1)  # as `dom0 up` does
        await box.at_rest()
        assert box.names() == {"box-web-1": RUNNING}
        assert loop.plan is not None
        assert loop.plan.problems == ()


async def test_limits_that_a_person_sets_where_none_are_declared_are_lifted() -> None:
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
        limits = UpdateBody(memory=1 << 26, memory_swap=1 << 26, nano_cpus=500_000_000, cpu_shares=2, pids_limit=9)
        await box.person.update_container("box-web-1", limits)
        await box.at_rest()
        found = as_sent(box.docker.container("box-web-1").host)
        assert {key: found[key] for key in as_sent(limits)} == {
            "Memory": 1 << 62,
            "MemorySwap": (1 << 63) - 4096,
            "NanoCpus": 2_000_000_000,
            "CpuShares": 1024,
            "PidsLimit": -1,
        }
