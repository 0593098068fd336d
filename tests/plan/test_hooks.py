"""Lifecycle hooks in plans: what is due, who waits for it, and what of it stands on the container."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dom0.engine.values import Container, Health, State
from dom0.plan import labels
from dom0.plan.desired import Condition, Dependency, Desired, HealthTest, Order, Slot
from dom0.plan.hooks import PreStop, pre_stop_of
from dom0.plan.memory import Memory, RefusedStep, SlotVersion
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan, make_plan
from dom0.plan.preview import preview
from dom0.plan.remember import remember_plan
from dom0.plan.steps import GiveUpContainer, RestartContainer, StopContainer
from dom0.plan.text import say_step
from dom0.testing.builders import actual, container, desired, hooked, slot

NOW = 1000.0
WEB = hooked(slot("web"), post_start="touch /set-up", pre_stop="touch /flushed")
NOTHING = Memory()


def plan(want: Desired, *found: Container, memory: Memory = NOTHING) -> Plan:
    return make_plan(want, actual(*found), memory, NOW)


def said(made: Plan) -> list[str]:
    return [say_step(step) for step in made.steps]


def labelled(of: Slot) -> Container:
    """As it was created: with the labels that `of` writes."""
    return replace(container(of), labels=of.create.labels)


def set_up(*containers: Container) -> Memory:
    return Memory(post_started={one.id: one.started for one in containers})


def test_what_runs_is_not_ready_before_its_post_start_has_succeeded() -> None:
    made = plan(desired(WEB), container(WEB))
    assert said(made) == ["run post_start of box-web-1"]
    assert (made.slots[0].phase, made.well, made.settled) == (Phase.STARTING, False, False)
    made = plan(desired(WEB), container(WEB), memory=set_up(container(WEB)))
    assert (said(made), made.slots[0].phase, made.settled) == ([], Phase.READY, True)


def test_another_start_wants_its_post_start_again() -> None:
    before = set_up(container(WEB))
    assert said(plan(desired(WEB), container(WEB, started=200.0), memory=before)) == ["run post_start of box-web-1"]


def test_of_a_container_that_is_gone_nothing_is_remembered() -> None:
    found, memory = container(WEB), set_up(container(WEB))
    for present in ((found,), ()):
        made = plan(desired(WEB), *present, memory=memory)
        kept = remember_plan(memory, made, present, busy=(), now=NOW).post_started
        assert kept == (memory.post_started if present else {})


@pytest.mark.parametrize("state", [State.PAUSED, State.RESTARTING, State.EXITED])
def test_only_in_what_runs_is_anything_run(state: State) -> None:
    assert "run post_start of box-web-1" not in said(plan(desired(WEB), container(WEB, state=state)))


def test_post_start_is_not_held_up_by_a_health_check_that_waits_for_it() -> None:
    web = replace(WEB, health=HealthTest(argv=("true",)))
    made = plan(desired(web), container(web, health=Health.UNHEALTHY))
    assert said(made) == ["run post_start of box-web-1"]


def test_one_that_failed_is_said_and_tried_again_later() -> None:
    found = container(WEB)
    refusal = RefusedStep(
        version=SlotVersion("", ""),
        subject="web-1",
        message="exited with code 3",
        code="post-start-failed",
        retry_at=1001.0,
    )
    memory = Memory(refused={f"post-start:{found.id}": refusal})
    made = plan(desired(WEB), found, memory=memory)
    assert (said(made), made.slots[0].phase, made.slots[0].reason) == ([], Phase.FAILED, "exited with code 3")
    assert ([problem.code for problem in made.problems], made.refused) == (["post-start-failed"], refusal)
    assert said(make_plan(desired(WEB), actual(found), memory, 1002.0)) == ["run post_start of box-web-1"]


@pytest.mark.parametrize("condition", [Condition.STARTED, Condition.HEALTHY])
def test_dependents_wait_for_post_start(condition: Condition) -> None:
    dependent = slot("app", depends_on=(Dependency(service="web", condition=condition),))
    want, created = desired(WEB, dependent), container(dependent, state=State.CREATED)
    assert "start box-app-1" not in said(plan(want, container(WEB), created))
    assert "start box-app-1" in said(plan(want, container(WEB), created, memory=set_up(container(WEB))))


def test_dependents_of_what_failed_before_its_post_start_wait() -> None:
    dependent = slot("app", depends_on=(Dependency(service="web"),))
    exited = container(WEB, state=State.EXITED, exit_code=1)
    assert "start box-app-1" not in said(
        plan(desired(WEB, dependent), exited, container(dependent, state=State.CREATED))
    )


def test_a_job_that_ended_before_its_post_start_has_completed() -> None:
    made = plan(desired(WEB), container(WEB, state=State.EXITED))
    assert (said(made), made.slots[0].phase) == ([], Phase.COMPLETED)


def test_a_predecessor_stays_until_post_start_has_succeeded_and_goes_with_its_own_pre_stop() -> None:
    new = hooked(slot("web", hash="h2"), post_start="true", pre_stop="echo new")
    old, running = labelled(WEB), container(new, id="2" * 64, name="2_box-web-1")
    assert said(plan(desired(new), old, running)) == ["run post_start of box-web-1"]
    (step,) = plan(desired(new), old, running, memory=set_up(running)).steps
    assert isinstance(step, StopContainer)
    assert step.pre_stop == pre_stop_of(old) == PreStop(hooks=pre_stop_of(old).hooks, grace=10.0)  # type: ignore[union-attr]
    assert step.pre_stop.hooks[0].argv == ("sh", "-c", "touch /flushed")


def test_what_makes_room_or_is_no_longer_asked_for_has_its_pre_stop() -> None:
    new = hooked(slot("web", hash="h2", order=Order.STOP_FIRST), pre_stop="echo new")
    created = container(new, id="2" * 64, name="2_box-web-1", state=State.CREATED)
    for want, found in ((desired(new), (labelled(WEB), created)), (desired(), (labelled(WEB),))):
        (step,) = plan(want, *found).steps
        assert isinstance(step, StopContainer)
        assert step.pre_stop == pre_stop_of(labelled(WEB))


def test_restarts_and_what_is_given_up_have_their_pre_stop() -> None:
    web = replace(WEB, health=HealthTest(argv=("true",)), post_start=())
    (step,) = plan(desired(web), replace(labelled(web), health=Health.UNHEALTHY)).steps
    assert isinstance(step, RestartContainer)
    assert step.pre_stop == pre_stop_of(labelled(web))
    given_up = Memory(crash_loops={web.key: SlotVersion(web.hash, web.image_id)})
    (step,) = plan(desired(web), replace(labelled(web), restart_policy="always"), memory=given_up).steps
    assert isinstance(step, GiveUpContainer)
    assert step.pre_stop == pre_stop_of(labelled(web))


def test_a_label_that_is_no_list_of_hooks_is_none() -> None:
    for text in ("", "[]", "{", '[{"argv": "x"}]', "7"):
        assert pre_stop_of(replace(container(WEB), labels={labels.PRE_STOP: text})) is None


def test_the_preview_says_what_is_due_and_nothing_more_of_what_is_created() -> None:
    rows = [(c.action, c.name, c.reason) for c in preview(desired(WEB), actual(container(WEB)), NOTHING, NOW)]
    assert rows == [("update", "box-web-1", "its post_start is due")]
    rows = [(c.action, c.name, c.reason) for c in preview(desired(WEB), actual(), NOTHING, NOW)]
    assert rows == [("create", "box-web-1", "it does not exist")]
