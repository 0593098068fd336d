"""Ways back: which generation a failed one returns to, trials and their end, rollbacks that would lead nowhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.agent.machine import Machine
from dom0.agent.state_files import ANNOUNCED_FOR, Trial
from dom0.agent.status import Outcome, UpRequest
from dom0.engine.bodies import ContainerBody, EndpointSettings, HealthConfig
from dom0.errors import Busy, EngineError, ProjectError, UsageError
from dom0.plan import labels
from dom0.plan.desired import Desired, HealthTest, Rollout, Slot
from dom0.testing.builders import PROJECT, asking, desired, image_id, network_spec, slot
from dom0.testing.fake_engine import Call
from dom0.testing.rig import NEW, OLD, Rig, broken, unhealthy
from dom0.testing.virtual_time import set_clock

HOUR = 3600.0
TRIAL = Trial(dom0_image=OLD, seconds=60.0)


def project_named(name: str, *slots: Slot) -> Desired:
    own = [asking(s, labels=s.create.labels | {labels.PROJECT: name}) for s in slots]
    return replace(desired(*own), project=name)


async def begin_trial(rig: Rig, **fields: Any) -> None:
    """Of a second version, when the first one is good."""
    await rig.outcome(Outcome.GOOD, 1)
    rig.project = desired(slot("web", hash="h2"), **fields)
    rig.machine.try_next(TRIAL)
    assert (await rig.up()).outcome is Outcome.TRIAL


async def make_good(rig: Rig, *versions: str) -> None:
    """The first one is there already; the others come by `dom0 up`."""
    for version in versions:
        rig.project = desired(slot("web", hash=version))
        assert (await rig.up()).outcome is Outcome.GOOD


async def roll_back(machine: Machine, number: int | None = None) -> Outcome | None:
    return [line async for line in machine.rollback(number)][-1].outcome


def history(machine: Machine) -> dict[int, Outcome]:
    return {generation.number: generation.outcome for generation in machine.history()}


def current(machine: Machine) -> int:
    return next(generation.number for generation in machine.history() if generation.current)


async def test_a_failed_generation_returns_to_what_ran_before_it_and_not_to_the_newest_good_one(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await make_good(rig, "h2", "h3")
        assert await roll_back(machine, 1) is Outcome.GOOD
        rig.project = desired(broken(slot("web", hash="h4")))
        assert (await rig.up()).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert current(machine) == 1


@pytest.mark.parametrize("slow", ["update_container", "stop_container"])
async def test_what_the_engine_starts_once_more_while_it_is_given_up_was_not_stopped_by_a_person(
    rig: Rig, slow: str
) -> None:
    """Else the new version, which always ends, would be as well as what somebody has stopped: good."""
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.engine.latency = lambda call: {slow: 1.0, "logs": 5.0}.get(call.name, 0.0)
        rig.project = desired(broken(slot("web", hash="h2", restart_policy="always")))
        assert (await rig.up()).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})


async def test_an_old_failure_that_is_tried_again_in_vain_returns_to_what_ran(rig: Rig) -> None:
    rig.project = desired(broken(slot("web")))
    async with rig.running() as machine:
        await rig.outcome(Outcome.FAILED, 1)
        await make_good(rig, "h2")
        assert await roll_back(machine, 1) is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h2"})


async def test_an_abort_ends_what_is_pending_and_goes_back(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(unhealthy(slot("web", hash="h2")), rollout=Rollout(timeout=HOUR))
        change = asyncio.create_task(rig.up())
        await rig.outcome(Outcome.PENDING, 2)
        assert (await machine.abort()).generation is not None
        verdict = await change
        assert (verdict.outcome, verdict.problems[0].title) == (Outcome.ABORTED, "dom0 abort")
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert history(machine) == {1: Outcome.GOOD, 2: Outcome.ABORTED}
        back = machine.history()[1]
        assert (back.current, back.back_because) == (True, "generation 2 aborted: dom0 abort")


async def test_an_abort_ends_a_trial_too(rig: Rig) -> None:
    async with rig.running() as machine:
        await begin_trial(rig)
        assert machine.history()[0].cause == "dom0 try"
        await machine.abort()
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert history(machine)[2] is Outcome.ABORTED


async def test_an_abort_of_what_has_not_begun_changes_nothing(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project, rig.pause = desired(slot("web", hash="h2")), HOUR
        change = asyncio.create_task(rig.up())
        await asyncio.sleep(1)
        await machine.abort()
        assert (await change).outcome is Outcome.ABORTED
        assert history(machine) == {1: Outcome.GOOD}
        rig.pause = 0.0
        assert (await rig.up()).outcome is Outcome.GOOD


async def test_an_abort_is_refused_where_there_is_nothing_to_end_or_to_go_back_to(rig: Rig) -> None:
    rig.project = desired(unhealthy(slot("web")), rollout=Rollout(timeout=HOUR))
    async with rig.running() as machine:
        await rig.outcome(Outcome.PENDING, 1)
        with pytest.raises(UsageError, match="no good generation"):
            await machine.abort()
        rig.project = desired(slot("web", hash="h2"))
        assert (await rig.up()).outcome is Outcome.GOOD
        with pytest.raises(UsageError, match="nothing is being changed"):
            await machine.abort()


async def test_a_network_that_somebody_else_still_uses_fails_no_generation(rig: Rig) -> None:
    extra = replace(network_spec(), key="extra", name="box_extra")
    rig.project = replace(desired(slot("web")), networks=(network_spec(), extra))
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.person.create_container("foreign", ContainerBody(image="app", cmd=("sleep", "100000")))
        await rig.box.person.connect_network("box_extra", "foreign", EndpointSettings())
        await rig.box.person.start_container("foreign")
        rig.project = desired(slot("web", hash="h2"))
        assert (await rig.up()).outcome is Outcome.GOOD
        await rig.box.person.remove_container("foreign", force=True)
        await asyncio.sleep(120)
        assert "box_extra" not in {network.name for network in await rig.box.person.networks()}
        assert machine.status().problems == ()


async def test_a_network_that_cannot_be_replaced_yet_stays_connected(rig: Rig) -> None:
    """The Engine refuses to remove it as long as somebody else's container runs in it."""
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.person.create_container("foreign", ContainerBody(image="app", cmd=("sleep", "100000")))
        await rig.box.person.connect_network("box_default", "foreign", EndpointSettings())
        await rig.box.person.start_container("foreign")
        rig.project = replace(rig.project, networks=(network_spec("n2"),))
        last = await rig.up()
        assert last.outcome is Outcome.FAILED
        assert "foreign" in last.problems[-1].title
        assert not [e for e in rig.box.docker.events.kept if e.action == "disconnect"]
        await rig.box.person.remove_container("foreign", force=True)
        assert (await rig.up()).outcome is Outcome.GOOD
        assert machine.status().converged


async def test_a_rollback_stays_within_its_project(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    await rig.box.person.remove_container("box-web-1", force=True)
    (rig.path / "state" / "current").unlink()  # as `dom0 down` does
    rig.project = project_named("other", slot("web"))
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 2)
        for number in (None, 1):
            with pytest.raises(UsageError):
                await anext(machine.rollback(number))
        rig.project = project_named("other", broken(slot("web", hash="h2")))
        assert (await rig.up()).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged)
        assert machine.history()[-1].number == 1
        assert next(g.number for g in machine.history() if g.current) == 2


async def test_a_first_generation_that_fails_never_becomes_another_project_s(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    await rig.box.person.remove_container("box-web-1", force=True)
    (rig.path / "state" / "current").unlink()
    rig.project = project_named("other", broken(slot("web", hash="h2")))
    async with rig.running() as machine:
        await rig.outcome(Outcome.FAILED, 2)
        status = machine.status()
        assert (status.project, status.last_good) == ("other", None)


async def test_a_rollback_to_images_that_are_gone_is_refused_and_changes_nothing(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2", image="app2"))
        await rig.up()
        del rig.box.docker.images.all[image_id("app")]
        with pytest.raises(UsageError, match="generation 1 needs the image app"):
            await anext(machine.rollback(1))
        await rig.up()
        assert current(machine) == 2
    assert rig.hashes() == {"h2"}


async def test_a_rollback_wins_over_the_own_project_that_is_still_being_read(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        await make_good(rig, "h2")
    rig.image, rig.pause, rig.project = NEW, 100.0, desired(slot("web", hash="h3"))
    async with rig.running() as machine:
        await roll_back(machine, 1)
        await asyncio.sleep(200)
        assert current(machine) == 1
    assert rig.hashes() == {"h1"}


async def test_up_ends_with_the_outcome_of_its_own_generation(rig: Rig) -> None:
    """Not with that of one that is judged while the project is still being read."""
    rig.project = desired(slot("web"), rollout=Rollout(monitor=20.0))
    async with rig.running() as machine:
        await rig.box.until(lambda: rig.hashes() == {"h1"})
        rig.pause, rig.project = 60.0, desired(slot("web", hash="h2"))
        last = await rig.up()
        assert (last.outcome, last.generation) == (Outcome.GOOD, 2)
        assert history(machine) == {1: Outcome.GOOD, 2: Outcome.GOOD}


async def test_whoever_goes_away_stops_nothing_and_blocks_nobody(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"), rollout=Rollout(monitor=60.0))
        lines = machine.up(UpRequest())
        await anext(lines)
        with pytest.raises(Busy):
            await anext(machine.rollback(1))
        await lines.aclose()
        rig.project = desired(slot("web", hash="h3"))
        assert (await rig.up()).outcome is Outcome.GOOD
        assert history(machine) == {1: Outcome.GOOD, 2: Outcome.REPLACED, 3: Outcome.GOOD}


@pytest.mark.parametrize("pause", [0.0, 100000.0])
async def test_the_machine_ends_at_once_whatever_is_under_way(rig: Rig, pause: float) -> None:
    sick = slot("web", hash="h2", health=HealthTest(argv=("false",)))
    async with asyncio.timeout(300):
        async with rig.running() as machine:
            await rig.outcome(Outcome.GOOD, 1)
            rig.pause = pause
            rig.project = desired(asking(sick, healthcheck=HealthConfig(test=("CMD", "false"))))
            lines = machine.up(UpRequest())
            following = asyncio.create_task(anext(lines))
            await asyncio.sleep(10)
        following.cancel()


async def test_what_the_first_start_lacked_is_looked_for_again(rig: Rig) -> None:
    """A network that comes up after us, an image that somebody loads."""
    rig.refusal = ProjectError("services.web: the image app is not on this machine")
    async with rig.running() as machine:
        await rig.box.until(lambda: [p.code for p in machine.status().problems] == ["project-invalid"])
        await asyncio.sleep(600)
        rig.refusal = None
        await rig.outcome(Outcome.GOOD, 1)
        assert machine.status().problems == ()


async def test_a_generation_is_given_its_time_although_the_clock_jumps(rig: Rig) -> None:
    check = HealthConfig(test=("CMD", "true"), interval=10 * 10**9)
    web = slot("web", health=HealthTest(argv=("true",)), health_gate=False)
    rig.project = desired(asking(web, healthcheck=check))
    async with rig.running() as machine:
        await rig.box.until(lambda: rig.hashes() == {"h1"})
        set_clock(40 * 365 * 24 * HOUR)
        await rig.outcome(Outcome.GOOD, 1)
        assert history(machine) == {1: Outcome.GOOD}


async def test_forced_recreation_ends_although_the_clock_goes_back(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        before = set(rig.box.docker.containers)
        lines = machine.up(UpRequest(force=True))
        await anext(lines)
        set_clock(-HOUR)
        assert [line async for line in lines][-1].outcome is Outcome.GOOD
    assert len(rig.box.docker.containers) == 1
    assert not before & set(rig.box.docker.containers)


# trials


@pytest.mark.parametrize("jump", [0.0, -HOUR, HOUR])
async def test_a_trial_lasts_from_when_it_is_good_and_no_longer_whatever_the_clock_does(rig: Rig, jump: float) -> None:
    async with rig.running():
        await begin_trial(rig, rollout=Rollout(monitor=120.0))
        await asyncio.sleep(50)
        assert rig.hashes() == {"h2"}
        set_clock(jump)
        await asyncio.sleep(150)
        assert rig.hashes() == {"h1"}


async def test_a_trial_ends_after_a_boot_with_a_wrong_clock(rig: Rig) -> None:
    async with rig.running():
        await begin_trial(rig)
    set_clock(-40 * 365 * 24 * HOUR)
    async with rig.running():
        await asyncio.sleep(100)
        assert rig.hashes() == {"h1"}


async def test_a_trial_is_confirmed_after_a_restart(rig: Rig) -> None:
    async with rig.running() as machine:
        await begin_trial(rig)
    async with rig.running() as machine:
        await machine.confirm()
        await asyncio.sleep(120)
        assert history(machine) == {1: Outcome.GOOD, 2: Outcome.GOOD}
        with pytest.raises(UsageError):
            await machine.confirm()
    assert rig.hashes() == {"h2"}


async def test_a_trial_that_is_confirmed_before_it_was_judged_is_still_judged(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(broken(slot("web", hash="h2")))
        machine.try_next(TRIAL)
        lines = machine.up(UpRequest())
        await anext(lines)
        await machine.confirm()
        assert [line async for line in lines][-1].outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})


async def test_up_during_a_trial_replaces_it_and_its_failure_returns_to_the_good_one_before_both(rig: Rig) -> None:
    async with rig.running() as machine:
        await begin_trial(rig)
        rig.project = desired(broken(slot("web", hash="h3")))
        assert (await rig.up()).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert history(machine) == {1: Outcome.GOOD, 2: Outcome.REPLACED, 3: Outcome.FAILED}


async def test_a_rollback_during_a_trial_ends_it(rig: Rig) -> None:
    async with rig.running() as machine:
        await begin_trial(rig)
        assert await roll_back(machine) is Outcome.GOOD
        await asyncio.sleep(600)
        assert history(machine) == {1: Outcome.GOOD, 2: Outcome.REPLACED}
    assert rig.hashes() == {"h1"}


async def test_an_announced_trial_is_for_the_next_change_alone(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        machine.try_next(TRIAL)
        assert (await rig.up()).outcome is Outcome.GOOD  # nothing differed
        await make_good(rig, "h2")
        machine.try_next(TRIAL)
        await asyncio.sleep(ANNOUNCED_FOR + 1)
        await make_good(rig, "h3")


async def test_the_project_may_not_change_its_name_under_way(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = replace(desired(slot("web", hash="h2")), project="other")
        last = await rig.up()
        assert (last.outcome, last.problems[0].code) == (Outcome.FAILED, "project-invalid")
        assert machine.status().project == PROJECT


def refuse_logs(call: Call) -> None:
    if call.name == "logs":
        raise EngineError("container x: configured logging driver does not support reading")


def complaining(of: Slot) -> Slot:
    return asking(of, cmd=("sh", "-c", "echo no such table; exit 3"))


async def test_the_last_words_of_what_failed_outlive_its_container(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(complaining(slot("web", hash="h2")))
        lines = [line async for line in machine.up(UpRequest())]
        assert ("web", "said: no such table") in [(line.service, line.text) for line in lines]
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert machine.history()[0].said[-1] == "web: no such table"


async def test_the_last_words_are_the_errors_of_the_last_start_and_not_what_it_chatted_about(rig: Rig) -> None:
    script = "echo initdb: Permission denied >&2; " + "echo welcome; " * 10 + "exit 1"
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        web = slot("web", hash="h2")
        rig.project = desired(asking(web, cmd=("sh", "-c", script)))
        await rig.up()
        assert machine.history()[0].said == ("web: initdb: Permission denied",)


async def test_of_a_health_check_the_last_line_is_the_reason_and_all_of_it_is_told(rig: Rig) -> None:
    check = HealthConfig(test=("CMD-SHELL", "echo Traceback:; echo connection refused; exit 1"), retries=1)
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        web = replace(slot("web", hash="h2"), health=HealthTest(argv=check.test[1:]))
        rig.project = desired(asking(web, healthcheck=check))
        await rig.up()
        failed = machine.history()[0]
        assert failed.reason == "web: health check failed: connection refused"
        assert failed.said == ("web: health check: Traceback:", "web: health check: connection refused")


async def test_of_many_errors_the_first_and_the_last_are_told(rig: Rig) -> None:
    script = "".join(f"echo {number} >&2; " for number in range(40)) + "exit 1"
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        web = slot("web", hash="h2")
        rig.project = desired(asking(web, cmd=("sh", "-c", script)))
        await rig.up()
        told = [*range(10), "... 10 lines ...", *range(20, 40)]
        assert machine.history()[0].said == tuple(f"web: {line}" for line in told)


async def test_a_service_whose_log_cannot_be_read_does_not_silence_the_others(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(unhealthy(slot("db", hash="h2")), complaining(slot("web", hash="h2")))

        def refuse_one(call: Call) -> None:
            if call.name == "logs" and rig.box.docker.container(call.what).name == "box-db-1":
                refuse_logs(call)

        rig.engine.before = refuse_one
        await rig.up()
        assert set(machine.history()[0].said) == {"web: no such table"}


async def test_an_engine_that_gives_no_logs_does_not_keep_the_machine_from_going_back(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.engine.before = refuse_logs
        rig.project = desired(complaining(slot("web", hash="h2")))
        assert (await rig.up()).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert machine.history()[0].said == ()
