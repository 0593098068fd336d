"""The loop on an Engine that refuses, breaks off or hangs: nothing is forgotten, nothing is asked without a pause."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dom0.engine.bodies import HealthConfig, RestartPolicy, UpdateBody
from dom0.engine.values import State
from dom0.errors import EngineError, EngineUnreachable, NotFound
from dom0.plan.desired import HealthTest, Slot
from dom0.testing import virtual_time
from dom0.testing.box import Box
from dom0.testing.builders import asking, desired, slot
from dom0.testing.fake_engine import Call

RUNNING, EXITED = State.RUNNING, State.EXITED
FEW = 30  # calls of one kind in a minute: tries with growing pauses


def checked(of: Slot, *argv: str) -> Slot:
    """With a health check that the Engine itself asks too late."""
    check = HealthConfig(test=("CMD", *argv), interval=10**13)
    return replace(asking(of, healthcheck=check), health=HealthTest(argv=argv))


def fail(name: str, error: EngineError, *, times: int = 10**9) -> Callable[[Call], None]:
    left = iter(range(times))

    def hook(call: Call) -> None:
        if call.name == name and next(left, None) is not None:
            raise error

    return hook


class Counting:
    """Counts the calls of `box`'s loop, beside another hook."""

    def __init__(self, box: Box) -> None:
        self.calls: Counter[str] = Counter()
        self._hook = box.engine.before
        box.engine.before = self

    def __call__(self, call: Call) -> None:
        self.calls[call.name] += 1
        self._hook(call)


async def test_a_connection_that_breaks_after_a_step_does_not_block_its_service_for_ever() -> None:
    box = Box(desired(slot("web")))

    def break_after_create(call: Call) -> None:
        if call.name == "create_container":
            box.engine.before = fail("container", EngineUnreachable("broke"), times=1)

    box.engine.after = break_after_create
    async with box.running():
        await box.until(lambda: box.names() == {"box-web-1": RUNNING})


async def test_a_container_that_the_engine_cannot_describe_holds_nobody_else_up() -> None:
    """As after a power cut: it is listed, and every question about it is answered with an error."""
    box = Box(desired(slot("web"), slot("db")))
    async with box.running():
        await box.at_rest()
    broken = box.docker.container("box-db-1").id

    def refuse(call: Call) -> None:
        if call.name == "container" and call.what == broken:
            raise EngineError("container x: RWLayer is unexpectedly nil")

    box.engine.before = refuse
    counting = Counting(box)
    async with box.running() as loop:
        await box.person.remove_container("box-web-1", force=True)
        await asyncio.sleep(60)
        assert box.names() == {"box-web-1": RUNNING, "box-db-1": RUNNING}
        assert counting.calls["create_container"] == 1
        assert loop.plan is not None
        assert ["RWLayer" in problem.title for problem in loop.plan.problems] == [True]
        box.engine.before = lambda _call: None
        await box.at_rest()


async def test_an_old_container_that_cannot_be_removed_keeps_neither_the_name_nor_the_service_waiting() -> None:
    """`device or resource busy`, as long as something on the host has a mount of it."""
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
    old = box.docker.container("box-web-1").id
    box.desired = desired(slot("web", hash="h2"))
    box.engine.before = fail("remove_container", EngineError("driver failed to remove root filesystem: busy"))
    async with box.running():
        await box.at_rest()
        aside = f"{box.docker.container('box-web-1').id[:12]}_box-web-1"
        assert (box.names(), box.docker.container(aside).id) == ({"box-web-1": RUNNING, aside: EXITED}, old)
        await asyncio.sleep(600)
        await box.person.kill_container("box-web-1")
        async with asyncio.timeout(10):
            await box.until(lambda: box.names()["box-web-1"] == RUNNING)
        box.engine.before = lambda _call: None
        await box.until(lambda: box.names() == {"box-web-1": RUNNING})


@pytest.mark.parametrize("name", ["containers", "volumes", "past_events"])
async def test_an_engine_that_answers_with_errors_is_asked_again_with_pauses(name: str) -> None:
    box = Box(desired(slot("web")))
    box.memory = replace(box.memory, last_event=virtual_time.now())
    box.engine.before = fail(name, EngineError("Docker Engine: input/output error"))
    counting = Counting(box)
    async with box.running() as loop:
        await asyncio.sleep(60)
        assert counting.calls[name] < FEW
        assert "input/output error" in str(loop.trouble)
        box.engine.before = lambda _call: None
        await box.at_rest()
        assert loop.trouble is None
    assert box.names() == {"box-web-1": RUNNING}


@pytest.mark.parametrize("name", ["create_network", "start_container", "connect_network"])
async def test_what_the_engine_cannot_find_is_told_and_tried_again_with_pauses(name: str) -> None:
    """A driver, plugin or network that is missing is `not found` too."""
    box = Box(desired(slot("web")))
    if name == "connect_network":
        async with box.running():
            await box.at_rest()
        await box.person.disconnect_network("box_default", "box-web-1")
    box.engine.before = fail(name, NotFound("plugin nope: not found"))
    counting = Counting(box)
    async with box.running() as loop:
        await asyncio.sleep(60)
        assert counting.calls[name] < FEW
        assert loop.plan is not None
        assert [problem.title for problem in loop.plan.problems if "plugin nope" in problem.title]
        box.engine.before = lambda _call: None
        await box.at_rest()


async def test_a_container_that_vanishes_before_its_start_is_made_again_at_once() -> None:
    box = Box(desired(slot("web")))

    def vanish(call: Call) -> None:
        if call.name == "start_container":
            box.engine.before = lambda _call: None
            box.docker.remove(box.docker.container("box-web-1"), force=True, volumes=False)

    box.engine.before = vanish
    async with box.running():
        async with asyncio.timeout(0.5):
            await box.until(lambda: box.names() == {"box-web-1": RUNNING})


async def test_a_health_command_that_the_engine_cannot_run_is_tried_with_pauses() -> None:
    box = Box(desired(checked(slot("web"), "true")))
    box.engine.before = fail("exec", EngineError("exec: procReady not received"))
    counting = Counting(box)
    async with box.running() as loop:
        await asyncio.sleep(60)
        assert 0 < counting.calls["exec"] < 100
        box.engine.before = lambda _call: None
        await box.until(lambda: loop.plan is not None and loop.plan.well)


async def test_the_loop_ends_while_a_health_command_has_not_passed() -> None:
    box = Box(desired(checked(slot("web"), "false")))
    async with asyncio.timeout(30), box.running():
        await box.until(lambda: box.names() == {"box-web-1": RUNNING})
        await asyncio.sleep(1)


async def test_the_loop_ends_while_a_process_takes_its_time_to_stop() -> None:
    box = Box(desired(slot("web"), asking(slot("slow"), stop_timeout=3600)))
    async with asyncio.timeout(60):
        async with box.running() as loop:
            await box.at_rest()
            box.aim(desired(slot("web")))
            await box.until(lambda: bool(loop.steps_under_way))


async def test_a_health_command_is_left_to_the_engine_once_it_calls_the_container_unhealthy() -> None:
    check = HealthConfig(test=("CMD", "false"), interval=10**9, retries=2)
    web = slot("web", health=HealthTest(argv=("false",)))
    box = Box(desired(asking(web, healthcheck=check)))
    box.memory = replace(box.memory, pending=True)  # nothing is restarted while it is judged
    async with box.running():
        await asyncio.sleep(30)
        counting = Counting(box)
        await asyncio.sleep(60)
        assert counting.calls["exec"] == 0


async def test_events_that_come_out_of_their_order_are_heard_too() -> None:
    obedient = asking(slot("web"), cmd=("sh", "-c", "trap 'exit 1' TERM; while :; do sleep 1; done"))
    box = Box(desired(obedient, slot("db")))
    async with box.running():
        await box.at_rest()
        await box.person.kill_container("box-db-1")
        virtual_time.set_clock(-0.001)
        await box.person.stop_container("box-web-1")
        virtual_time.set_clock(0.001)
        await asyncio.sleep(120)
    assert box.names() == {"box-web-1": EXITED, "box-db-1": RUNNING}


async def test_what_succeeds_and_changes_nothing_is_done_with_pauses() -> None:
    """The network that is made never has the hash that was asked for."""
    want = desired(slot("web"))
    box = Box(replace(want, networks=(replace(want.networks[0], hash="another"),)))
    counting = Counting(box)
    async with box.running() as loop:
        await asyncio.sleep(60)
        assert counting.calls["create_network"] < FEW
        assert loop.plan is not None
        assert "no-effect" in [problem.code for problem in loop.plan.problems]
        box.aim(want)
        await box.at_rest()
    assert box.names() == {"box-web-1": RUNNING}


async def test_a_start_that_takes_long_holds_nobody_else_up() -> None:
    """The Engine answers no question about a container while it starts it."""
    box = Box(desired(slot("slow"), slot("web")))
    starting: set[str] = set()

    def latency(call: Call) -> float:
        if call.name == "start_container" and box.docker.container(call.what).name == "box-slow-1":
            starting.add(call.what)
        return 1000.0 if call.what in starting else 0.0

    def started(call: Call) -> None:
        if call.name == "start_container":
            starting.discard(call.what)

    box.engine.latency, box.engine.after = latency, started
    async with box.running():
        await box.until(lambda: bool(starting) and box.names().get("box-web-1") is RUNNING)
        update = UpdateBody(restart_policy=RestartPolicy(name="always"))
        await box.person.update_container("box-slow-1", update)  # an event of it
        await box.person.kill_container("box-web-1")
        await box.until(lambda: box.names()["box-web-1"] is EXITED)
        await box.until(lambda: box.names()["box-web-1"] is RUNNING)
        assert box.names()["box-slow-1"] is State.CREATED
        await box.at_rest()
    assert box.names()["box-slow-1"] is RUNNING
