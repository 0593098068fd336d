"""Generations: what makes a new one, when it is good, and how the machine comes back from one that is not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dom0.agent.generations import Generations
from dom0.agent.machine import UP_WITHIN
from dom0.agent.readiness import Readiness
from dom0.agent.source import Handed
from dom0.agent.state_files import Trial
from dom0.agent.status import Outcome, PullStatus, UpRequest
from dom0.compose.model import Project
from dom0.engine.bodies import HealthConfig
from dom0.errors import Busy, EngineUnreachable, ProjectError, UsageError
from dom0.plan.desired import Dependency, HealthTest, Rollout, Slot
from dom0.testing.builders import asking, desired, slot
from dom0.testing.rig import NEW, OLD, Rig, broken, unhealthy


async def test_the_first_start_makes_the_first_generation(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        status = machine.status()
    assert status.generation is not None
    assert (status.generation.cause, status.last_good, status.converged) == ("first start", 1, True)
    assert rig.placed() == "one"


async def test_a_generation_knows_whose_agent_made_it_current(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("db"))
        assert (await rig.up(image=NEW)).outcome is Outcome.GOOD
    generations = Generations(rig.path / "state")
    assert [generations.read(number).agent_image for number in (1, 2)] == [OLD, OLD]


async def test_one_that_dom0_up_has_started_waits_for_its_word(rig: Rig) -> None:
    rig.awaits_up = True
    async with rig.running() as machine:
        await asyncio.sleep(UP_WITHIN / 2)
        assert (rig.given, rig.box.docker.containers) == ([], {})
        project = Project(name="box")
        request = UpRequest(project=msgspec.Raw(msgspec.json.encode(project)), layer=b"a tar")
        lines = [line async for line in machine.up(request)]
        assert lines[-1].outcome is Outcome.GOOD
        await asyncio.sleep(2 * UP_WITHIN)
        assert [generation.cause for generation in machine.history()] == ["first start"]
    assert rig.given == [Handed(project, b"a tar")]


async def test_it_begins_by_itself_when_that_dom0_up_was_killed(rig: Rig) -> None:
    rig.awaits_up = True
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    async with rig.running() as machine:  # it has its generation, and waits for nothing
        async with asyncio.timeout(UP_WITHIN / 2):
            await rig.box.until(lambda: machine.status().converged)


async def test_it_goes_on_by_itself_when_that_dom0_up_was_refused(rig: Rig) -> None:
    rig.awaits_up, rig.refusal = True, ProjectError("web: no such image")
    async with rig.running():
        assert (await rig.up()).outcome is Outcome.FAILED
        rig.refusal = None
        await rig.outcome(Outcome.GOOD, 1)


@pytest.mark.parametrize("project", [b"[]", b'{"name": 3}', b'{"name": "box", "unknown": 1}'])
async def test_a_project_that_is_none_is_refused(rig: Rig, project: bytes) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        last = [line async for line in machine.up(UpRequest(project=msgspec.Raw(project)))][-1]
        assert last.outcome is Outcome.FAILED
        assert last.problems[0].title.startswith("project: ")
        assert len(machine.history()) == 1


async def test_a_restart_goes_on_with_the_generation_it_finds(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.project = desired(slot("web", hash="h2"))
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert [generation.number for generation in machine.history()] == [1]
    assert rig.hashes() == {"h1"}


async def test_ambassadors_know_after_a_restart_at_once_of_which_project_they_are(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.readiness = Readiness()
    async with rig.running():
        await asyncio.sleep(0)  # before the Engine has answered
        assert rig.readiness.now.project == "box"


async def test_another_image_is_another_generation(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.image, rig.project = NEW, desired(slot("web", hash="h2"))
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 2)
    assert rig.hashes() == {"h2"}


async def test_up_without_a_change_makes_no_generation(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        last = await rig.up()
        assert (last.outcome, len(machine.history())) == (Outcome.GOOD, 1)


async def test_up_right_after_the_start_follows_the_generation_that_is_on_its_way(rig: Rig) -> None:
    async with rig.running() as machine:
        last = await rig.up()
        assert (last.outcome, last.generation, len(machine.history())) == (Outcome.GOOD, 1, 1)


async def test_up_starts_again_what_a_person_stopped(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.person.stop_container("box-web-1")
        await rig.box.until(lambda: rig.hashes() == set())
        await rig.up()
    assert rig.hashes() == {"h1"}


async def test_up_with_force_makes_every_container_anew(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        before = set(rig.box.docker.containers)
        await asyncio.sleep(1)
        last = await rig.up(force=True)
        assert (last.outcome, last.text) == (Outcome.GOOD, "generation 1: ready")
        assert (await rig.up()).text == "generation 1: nothing to do"
    assert not before & set(rig.box.docker.containers)


@pytest.mark.parametrize("fault", [broken, unhealthy])
async def test_a_generation_that_does_not_become_healthy_goes_back_by_itself(
    rig: Rig, fault: Callable[[Slot], Slot]
) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        (rig.path / "files" / "web.conf").write_text("two")
        rig.project = desired(fault(slot("web", hash="h2", restart_policy="always")))
        last = await rig.up()
        assert (last.outcome, last.generation) == (Outcome.FAILED, 2)
        assert last.problems[0].code == "generation-failed"
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert [(g.number, g.outcome, g.current) for g in machine.history()] == [
            (2, Outcome.FAILED, False),
            (1, Outcome.GOOD, True),
        ]
    assert rig.placed() == "one"
    assert rig.box.names() == {"box-web-1": "running"}


async def test_a_generation_that_takes_too_long_goes_back(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        slow = slot("web", hash="h2", health=HealthTest(argv=("false",)))
        slow = asking(slow, healthcheck=HealthConfig(test=("CMD", "false"), interval=10**12))
        rig.project = desired(slow, rollout=Rollout(timeout=20.0))
        last = await rig.up()
        assert last.outcome is Outcome.FAILED
        assert "not ready within 20 s: web" in last.problems[0].title


async def test_a_generation_that_could_not_be_started_in_time_says_why(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        rig.box.docker.refuse_start("db", "no such device")
        slow = slot("web", hash="h2", depends_on=(Dependency(service="db"),))
        rig.project = desired(slot("db"), slow, rollout=Rollout(timeout=2.5))
        last = await rig.up()
    why = last.problems[0].title
    assert "could not be started within 2.5 s: db: container box-db-1: no such device" in why
    assert "not ready within 2.5 s: web (waits for db" in why


async def test_a_failed_image_is_not_tried_again_by_a_restart_but_by_up(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.image, rig.project = NEW, desired(broken(slot("web", hash="h2")))
    async with rig.running():
        await rig.outcome(Outcome.FAILED, 2)
        await rig.box.until(lambda: rig.handed_over == [OLD])
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert len(machine.history()) == 2
        await rig.box.until(lambda: rig.handed_over == [OLD, OLD])
    rig.image, rig.project = OLD, desired(slot("web", hash="h2"))
    async with rig.running():
        last = await rig.up(image=NEW)
        assert (last.outcome, last.generation) == (Outcome.GOOD, 3)
    assert rig.hashes() == {"h2"}


async def test_a_first_generation_that_fails_has_nothing_to_go_back_to_and_keeps_trying(rig: Rig) -> None:
    rig.project = desired(broken(slot("web")), slot("db"))
    async with rig.running() as machine:
        await rig.outcome(Outcome.FAILED, 1)
        status = machine.status()
        assert status.generation is not None
        assert status.generation.current
    assert rig.box.names()["box-db-1"] == "running"


async def test_a_refused_project_changes_nothing(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.refusal = ProjectError("services.web: the image nope is not on this machine", hint="build it")
        last = await rig.up()
        assert (last.outcome, last.problems[0].code) == (Outcome.FAILED, "project-invalid")
        assert [g.number for g in machine.history()] == [1]
    assert rig.hashes() == {"h1"}


async def test_a_refused_project_of_a_new_image_leaves_the_last_generation_running(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.image, rig.refusal = NEW, ProjectError("compose.d/50-box.yaml: nonsense")
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        await rig.box.until(lambda: bool(machine.status().problems))
        assert [problem.code for problem in machine.status().problems] == ["project-invalid"]
    assert rig.hashes() == {"h1"}


async def test_another_name_for_the_project_is_refused(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = replace(rig.project, project="other")
        last = await rig.up()
        assert "the running project is box" in last.problems[0].title


async def test_rollback_goes_to_the_generation_before_and_hands_over_to_its_image(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    (rig.path / "files" / "web.conf").write_text("two")
    rig.image, rig.project = NEW, desired(slot("web", hash="h2"))
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 2)
        assert rig.placed() == "two"
        await rig.box.until(lambda: machine.status().converged)
        async for _ in machine.rollback(None):
            pass
        await rig.box.until(lambda: rig.hashes() == {"h1"})
        await rig.box.until(lambda: rig.handed_over == [OLD])
    assert rig.placed() == "one"


async def test_rollback_names_what_it_cannot_do(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        for number in (None, 1, 7):
            with pytest.raises(UsageError):
                await anext(machine.rollback(number))


async def test_a_second_change_at_once_is_told_to_wait(rig: Rig) -> None:
    async with rig.running() as machine:
        lines = machine.up(UpRequest())
        await anext(lines)
        with pytest.raises(Busy):
            await anext(machine.up(UpRequest(force=True)))
        async for _ in lines:
            pass


async def test_the_same_change_at_once_is_followed_by_whoever_asks_for_it_again(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        read = msgspec.Raw(msgspec.json.encode(Project(name="box")))
        first = machine.up(UpRequest(project=read, layer=b"a tar"))  # a command that builds again has neither
        await anext(first)
        again = [line async for line in machine.up(UpRequest())]
        assert again[0].text == "the same change is under way already: following it"
        assert (again[-1].outcome, again[-1].generation) == (Outcome.GOOD, 2)
        assert [line async for line in first][-1] == again[-1]
        assert [info.number for info in machine.history()] == [2, 1]


PULLS = (PullStatus(image="redis:7", size=2, have=1, rate=1.0, left=1.0, drops=0),)


async def test_an_up_of_something_else_ends_the_pull_of_the_one_before(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.pause, rig.pulls, rig.project = 86400.0, PULLS, desired(slot("web", hash="h2"))
        lines = machine.up(UpRequest())
        while (line := await anext(lines)).pulls is None:
            pass
        assert (line.pulls, machine.status().pulls) == (PULLS, PULLS)
        rig.pause, rig.project = 0.0, desired(slot("web", hash="h3"))
        last = await rig.up(force=True)
        assert (last.outcome, last.generation) == (Outcome.GOOD, 2)
        ended = [line async for line in lines][-1]
        assert ended.outcome is Outcome.REPLACED
        assert "what was pulled so far is kept" in ended.problems[0].title
        assert machine.status().pulls == ()
    assert rig.hashes() == {"h3"}


async def test_abort_ends_a_pull_and_nothing_that_runs_is_touched(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        before = dict(rig.box.docker.containers)
        rig.pause, rig.pulls, rig.project = 86400.0, PULLS, desired(slot("web", hash="h2"))
        lines = machine.up(UpRequest())
        while (await anext(lines)).pulls is None:
            pass
        await machine.abort()
        assert [line async for line in lines][-1].outcome is Outcome.ABORTED
        assert machine.status().pulls == ()
        assert rig.box.docker.containers == before


async def test_what_the_agent_pulls_by_itself_gives_way_to_an_up_and_ends_with_abort(rig: Rig) -> None:
    rig.pause, rig.pulls = 86400.0, PULLS
    async with rig.running() as machine:
        await machine.changed.until(lambda: machine.status().pulls == PULLS)
        rig.pause = 0.0
        last = await rig.up()
        assert (last.outcome, last.generation) == (Outcome.GOOD, 1)
    rig.image, rig.pause, rig.project = NEW, 86400.0, desired(slot("web", hash="h2"))
    async with rig.running() as machine:
        await machine.changed.until(lambda: machine.status().pulls == PULLS)
        await machine.abort()
        await machine.changed.until(lambda: machine.status().pulls == ())
        assert rig.hashes() == {"h1"}
        await rig.box.until(lambda: rig.handed_over == [OLD])  # the agent of the generation that stays
        assert machine.status().pulls == ()


async def test_an_up_that_is_refused_lets_the_agent_go_on_with_its_own_pull(rig: Rig) -> None:
    rig.pause, rig.pulls = 1000.0, PULLS
    async with rig.running() as machine:
        await machine.changed.until(lambda: machine.status().pulls == PULLS)
        rig.pause, rig.refusal = 0.0, ProjectError("compose.yaml: is wrong")
        assert (await rig.up()).outcome is Outcome.FAILED
        rig.refusal = None
        await rig.outcome(Outcome.GOOD, 1)


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_trial_goes_back_unless_it_is_confirmed(rig: Rig, confirm: bool) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        machine.try_next(Trial(dom0_image=OLD, seconds=60.0))
        last = await rig.up()
        assert (last.outcome, rig.hashes()) == (Outcome.TRIAL, {"h2"})
        if confirm:
            status = await machine.confirm()
            assert status.generation is not None
            assert status.generation.outcome is Outcome.GOOD
        await asyncio.sleep(120)
        await rig.box.until(lambda: machine.status().converged)
    assert rig.hashes() == ({"h2"} if confirm else {"h1"})


async def test_a_trial_ends_in_time_even_if_the_agent_was_away(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        machine.try_next(Trial(dom0_image=OLD, seconds=60.0))
        await rig.up()
    await asyncio.sleep(600)
    async with rig.running() as machine:
        await rig.box.until(lambda: rig.hashes() == {"h1"})


async def test_a_trial_whose_time_has_passed_before_it_was_judged_goes_back_all_the_same(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        machine.try_next(Trial(dom0_image=OLD, seconds=1.0))
        assert (await rig.up()).outcome is Outcome.TRIAL
        await rig.box.until(lambda: rig.hashes() == {"h1"})


async def test_an_engine_that_does_not_answer_before_the_first_generation_is_noticed_too(rig: Rig) -> None:
    rig.refusal = EngineUnreachable("unix:///run/docker.sock: no Docker Engine answers")
    async with rig.running() as machine:
        async with asyncio.timeout(60):
            await machine.changed.until(lambda: machine.is_blind)
        rig.refusal = None
        await rig.outcome(Outcome.GOOD, 1)
        assert not machine.is_blind


async def test_nothing_is_called_as_desired_while_the_engine_does_not_answer(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        seen = machine.changed.count
        rig.box.docker.stop_engine()
        await machine.changed.after(seen)
        status = machine.status()
        assert [problem.code for problem in status.problems] == ["engine-unreachable"]
        assert not status.converged
        refused = await rig.up()
        assert [problem.code for problem in refused.problems] == ["engine-unreachable"]
        rig.box.docker.start_engine()
        await machine.changed.until(lambda: machine.status().converged)
        assert machine.status().problems == ()


async def test_confirming_without_a_trial_is_refused(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        with pytest.raises(UsageError):
            await machine.confirm()


async def test_no_descriptor_left_for_protecting_them_ends_no_machine(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def iterdir(directory: Path) -> Iterator[Path]:
        if directory.name == "generations" and (directory / "1/generation.json").read_bytes().find(b'"good"') > 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return listed(directory)

    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", iterdir)
    async with rig.running() as machine:
        await rig.box.until(lambda: "images of good generations are not protected" in caplog.text)
        assert "what the last good generation left behind stays" in caplog.text
        monkeypatch.undo()
        await rig.outcome(Outcome.GOOD, 1)
        assert machine.status().converged


async def test_good_generations_protect_their_images(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.until(lambda: any("dom0-kept:" in tag for tag in rig.box.docker.images.all[OLD].tags))


async def test_a_protection_that_somebody_moved_to_another_image_comes_back(rig: Rig) -> None:
    """`docker load` gives images whatever names its archive says."""
    images = rig.box.docker.images
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        await rig.box.until(lambda: any("dom0-kept:" in tag for tag in images.all[OLD].tags))
        kept = next(tag for tag in images.all[OLD].tags if "dom0-kept:" in tag)
        images.tag(NEW, kept)
        assert kept not in images.all[OLD].tags
        rig.project = desired(slot("web", hash="h2"))
        await rig.up()
        await rig.box.until(lambda: kept in images.all[OLD].tags)


async def test_an_image_that_has_just_taken_over_does_not_hand_back_to_the_one_before(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.image, rig.pause = NEW, 60.0  # the generation before is well long before the new project is read
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 2)
        assert machine.history()[0].dom0_image == NEW
    assert rig.handed_over == []


async def test_a_project_on_the_same_base_is_taken_over_and_its_image_afterwards(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        last = await rig.up(image=NEW)
        assert (last.outcome, rig.hashes()) == (Outcome.GOOD, {"h2"})
        await rig.box.until(lambda: rig.handed_over == [NEW])
        assert machine.history()[0].dom0_image == NEW
    rig.image = NEW
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert [g.number for g in machine.history()] == [2, 1]
    assert rig.handed_over == [NEW]


async def test_a_project_that_fails_never_needs_its_image(rig: Rig) -> None:
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(broken(slot("web", hash="h2")))
        last = await rig.up(image=NEW)
        assert last.outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged)
    assert (rig.hashes(), rig.handed_over) == ({"h1"}, [])


async def test_an_agent_killed_before_it_could_hand_over_does_so_after_its_restart(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
        rig.project = desired(slot("web", hash="h2"))
        await rig.up(image=NEW)
    rig.handed_over.clear()
    async with rig.running() as machine:
        await rig.box.until(lambda: rig.handed_over == [NEW])
        assert len(machine.history()) == 2


async def test_an_image_that_once_handed_its_place_back_takes_it_again(rig: Rig) -> None:
    async with rig.running():
        await rig.outcome(Outcome.GOOD, 1)
    rig.image, rig.project = NEW, desired(slot("web", hash="h2"))
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 2)
        _ = [line async for line in machine.rollback(None)]
        await rig.box.until(lambda: rig.handed_over == [OLD])
    rig.image = OLD
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
    rig.image = NEW
    async with rig.running() as machine:
        await rig.outcome(Outcome.GOOD, 3)
        await rig.box.until(lambda: machine.status().converged)
    assert rig.handed_over == [OLD]
    assert rig.hashes() == {"h2"}
