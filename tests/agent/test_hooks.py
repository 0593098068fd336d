"""Lifecycle hooks in the loop and in whole machines, on the fake Engine in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dom0.agent.followed import find, wanted
from dom0.agent.hooks import LAST_GRACE
from dom0.agent.reconcile import take_down
from dom0.agent.refusal import MANY
from dom0.agent.rollout import REFUSALS
from dom0.agent.status import Outcome
from dom0.engine.values import State
from dom0.errors import EngineUnreachable
from dom0.plan.desired import Dependency, Desired, Rollout, Slot
from dom0.testing.box import Box, Unheard
from dom0.testing.builders import asking, desired, hooked, slot
from dom0.testing.fake_engine import Call, Killed
from dom0.testing.rig import Rig

SET_UP, FLUSH = "touch /set-up", "touch /flushed"
WEB = hooked(slot("web", restart_policy="always"), post_start=SET_UP, pre_stop=FLUSH)


def told(box: Box, action: str) -> list[str]:
    """What was done in containers and to them, of the actions that begin with `action`."""
    return [event.action for event in box.docker.events.kept if event.action.startswith(action)]


def runs_of(box: Box, script: str) -> int:
    return told(box, "exec_start").count(f"exec_start: sh -c {script}")


def actions(box: Box, name: str) -> list[str]:
    """Of the container `name`: its starts, stops and hooks, in order."""
    found = [e.action for e in box.docker.events.kept if e.attributes.get("name") == name]
    return [a.removeprefix("exec_start: sh -c ") for a in found if a in ("start", "kill") or a.startswith("exec_start")]


async def test_every_start_has_its_post_start_whoever_makes_it() -> None:
    box = Box(desired(WEB))
    async with box.running():
        await box.at_rest()
        assert runs_of(box, SET_UP) == 1
        await box.person.kill_container("box-web-1")
        await box.at_rest()
        assert runs_of(box, SET_UP) == 2
        await box.person.stop_container("box-web-1")
        await box.person.start_container("box-web-1")
        await box.at_rest()
        assert runs_of(box, SET_UP) == 3
        box.docker.restart_engine(crash=False)
        await box.until(lambda: runs_of(box, SET_UP) == 1)  # it has forgotten its events
        await box.at_rest()
    assert runs_of(box, SET_UP) == 1
    assert runs_of(box, FLUSH) == 0


async def test_one_start_after_another_is_no_step_without_effect() -> None:
    box = Box(desired(WEB))
    async with box.running() as loop:
        await box.at_rest()
        for starts in range(2, MANY + 3):
            await box.person.kill_container("box-web-1")
            await box.until(lambda: runs_of(box, SET_UP) == starts)  # noqa: B023 -- asked within the round
            await box.at_rest()
        assert loop.memory.refused == {}


async def test_an_engine_that_goes_away_meanwhile_is_no_failure_of_the_hook() -> None:
    box = Box(desired(WEB))
    box.engine.before = unreachable_once("exec")
    async with box.running() as loop:
        await box.at_rest()
        assert (loop.memory.refused, runs_of(box, SET_UP)) == ({}, 1)
    box.desired = desired()
    box.engine.before = unreachable_once("exec")
    async with box.running():
        await box.at_rest()
    assert (box.names(), runs_of(box, FLUSH)) == ({}, 1)


def unreachable_once(name: str) -> Callable[[Call], None]:
    return raise_at(name, EngineUnreachable("Docker Engine: no answer"))


async def test_an_agent_that_comes_later_makes_up_for_starts_that_it_missed() -> None:
    box = Box(desired(WEB))
    async with box.running():
        await box.at_rest()
    async with box.running():
        await box.at_rest()
    assert runs_of(box, SET_UP) == 1
    await box.person.stop_container("box-web-1")
    await box.person.start_container("box-web-1")
    async with box.running():
        await box.at_rest()
    assert runs_of(box, SET_UP) == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_while_post_start_runs_has_it_run_again(when: str) -> None:
    box = Box(desired(hooked(slot("web"), post_start="touch /set-up; sleep 5")))
    setattr(box.engine, when, kill_at("exec"))
    with pytest.raises(BaseExceptionGroup):
        async with box.running():
            await box.at_rest()
    began = runs_of(box, "touch /set-up; sleep 5")
    async with box.running() as loop:
        await box.at_rest()
        assert loop.plan is not None
        assert loop.plan.well
    assert runs_of(box, "touch /set-up; sleep 5") == began + 1


def kill_at(name: str) -> Callable[[Call], None]:
    return raise_at(name, Killed())


def raise_at(name: str, what: BaseException) -> Callable[[Call], None]:
    """Once."""
    left = [name]

    def hook(call: Call) -> None:
        if left == [call.name]:
            left.clear()
            raise what

    return hook


async def test_a_replacement_is_ready_before_its_predecessor_is_told_to_stop() -> None:
    box = Box(desired(WEB))
    async with box.running():
        await box.at_rest()
        old = next(iter(box.docker.containers.values()))
        order: list[str] = []
        box.engine.before = lambda call: order.append(call.name) if call.name in ("exec", "stop_container") else None
        box.aim(desired(replace(WEB, hash="h2", create=slot("web", hash="h2").create)))
        await box.at_rest()
    assert order == ["exec", "exec", "stop_container"]
    assert "/flushed" in old.files
    assert runs_of(box, FLUSH) == 1


async def test_what_leaves_the_project_and_what_is_taken_down_has_its_pre_stop() -> None:
    box = Box(desired(WEB, hooked(slot("db"), pre_stop="touch /saved")))
    async with box.running():
        await box.at_rest()
        box.aim(desired(WEB))
        await box.at_rest()
    assert (runs_of(box, "touch /saved"), runs_of(box, FLUSH)) == (1, 0)
    await take_down(box.engine, Desired(project="box"), Unheard(), limit=4, seal=box.seal)
    assert (box.names(), runs_of(box, FLUSH)) == ({}, 1)


@pytest.mark.parametrize("script", ["exit 3", "nothing-of-that-name"])
async def test_a_pre_stop_that_fails_holds_nothing_up(script: str, caplog: pytest.LogCaptureFixture) -> None:
    box = Box(desired(hooked(slot("web"), pre_stop=script)))
    async with box.running():
        await box.at_rest()
        box.aim(desired())
        await box.at_rest()
    assert box.names() == {}
    assert "pre_stop[0] exited with code" in caplog.text


@pytest.mark.parametrize(("grace", "bound"), [(30, 30.0 + LAST_GRACE), (1, 2.0)])
async def test_a_pre_stop_that_hangs_and_the_stop_share_the_grace(grace: int, bound: float) -> None:
    assert grace < await time_to_go(hooked(slot("web"), pre_stop="sleep 1000"), grace) < bound + 1.0


async def test_what_of_the_grace_pre_stop_does_not_need_is_the_stops() -> None:
    assert 29.0 < await time_to_go(hooked(slot("web"), pre_stop="sleep 10"), 30) < 31.5


async def time_to_go(of: Slot, grace: int) -> float:
    """Seconds from when it is no longer asked for until its container is removed."""
    box = Box(desired(asking(of, stop_timeout=grace)))
    async with box.running():
        await box.at_rest()
        began = asyncio.get_running_loop().time()
        box.aim(desired())
        await box.until(lambda: box.names() == {})
        return asyncio.get_running_loop().time() - began


async def test_a_kill_while_pre_stop_runs_has_it_run_again_and_the_container_stopped() -> None:
    box = Box(desired(WEB))
    async with box.running():
        await box.at_rest()
    box.desired = desired()
    box.engine.after = kill_at("exec")
    with pytest.raises(BaseExceptionGroup):
        async with box.running():
            await box.at_rest()
    assert box.names() == {"box-web-1": State.RUNNING}
    async with box.running():
        await box.at_rest()
    assert (box.names(), runs_of(box, FLUSH)) == ({}, 2)


async def test_dependents_start_after_post_start() -> None:
    box = Box(desired(hooked(slot("db"), post_start="sleep 5"), slot("web", depends_on=(Dependency(service="db"),))))
    async with box.running():
        await box.until(lambda: runs_of(box, "sleep 5") == 1)
        await asyncio.sleep(4.0)
        assert box.names()["box-web-1"] == State.CREATED
        await box.at_rest()
    assert box.names()["box-web-1"] == State.RUNNING


async def test_a_service_that_ends_while_its_post_start_runs_is_told_by_its_own_end() -> None:
    web = hooked(slot("web"), post_start="sleep 100")
    box = Box(desired(asking(web, cmd=("sh", "-c", "sleep 1; exit 7"))))
    async with box.running() as loop:
        await box.at_rest()
    assert loop.plan is not None
    assert [problem.code for problem in loop.plan.problems] == ["crash-loop"]
    assert loop.memory.refused == {}


async def test_a_hook_that_hangs_hinders_no_replacement() -> None:
    box = Box(desired(hooked(slot("web"), post_start="sleep 1000000")))
    async with box.running() as loop:
        await box.until(lambda: runs_of(box, "sleep 1000000") == 1)
        box.aim(desired(slot("web", hash="h2")))
        await box.at_rest()
        assert box.names() == {"box-web-1": State.RUNNING}
        assert loop.plan is not None
        assert loop.plan.well


async def test_a_post_start_that_fails_is_tried_again_until_it_succeeds() -> None:
    box = Box(desired(hooked(slot("web"), post_start="echo not yet; test -f /ready")))
    async with box.running() as loop:
        await box.until(lambda: runs_of(box, "echo not yet; test -f /ready") == 4)
        assert loop.plan is not None
        assert [(p.code, p.subject, p.title) for p in loop.plan.problems] == [
            ("post-start-failed", "web-1", "web: post_start[0] exited with code 1: not yet")
        ]
        next(iter(box.docker.containers.values())).files["/ready"] = b""
        await box.at_rest()
        assert loop.plan.well
        assert loop.plan.problems == ()


async def test_a_generation_whose_post_start_fails_goes_back_and_says_why(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(hooked(slot("web", hash="h2"), post_start="echo no such table; exit 3", pre_stop=FLUSH))
        verdict = await rig.up()
        assert (verdict.outcome, verdict.problems[0].title) == (
            Outcome.FAILED,
            "web: post_start[0] exited with code 3: no such table",
        )
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
    assert runs_of(rig.box, "echo no such table; exit 3") == REFUSALS
    assert runs_of(rig.box, FLUSH) == 1


async def test_a_generation_whose_post_start_hangs_goes_back_in_time(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(hooked(slot("web", hash="h2"), post_start="sleep 1000000"), rollout=Rollout(timeout=60.0))
        verdict = await rig.up()
        assert verdict.problems[0].title == "not ready within 60 s: web (its post_start has not ended yet)"
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})


async def test_ambassadors_are_led_to_no_container_before_its_post_start_has_succeeded(rig: Rig) -> None:
    rig.project = desired(hooked(slot("web"), post_start="sleep 5"), slot("front"))
    async with rig.running():
        await rig.box.until(lambda: runs_of(rig.box, "sleep 5") == 1)

        def addresses() -> int:
            containers = [container.value() for container in rig.box.docker.containers.values()]
            front = next(one for one in containers if one.name == "box-front-1")
            ready = rig.readiness.now
            found = find(wanted(["service:web"]), front, containers, ready)
            return len(found.addresses["service:web"])

        assert addresses() == 0
        await rig.outcome(Outcome.GOOD, 1)
        assert addresses() == 1
