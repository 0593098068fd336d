"""What becomes of a generation, case by case: given what it is and what the plan says, what follows."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dom0.agent.generations import Generation
from dom0.agent.rollout import (
    REFUSALS,
    Accept,
    Expire,
    Fail,
    GoBack,
    Release,
    RestartTrial,
    Transition,
    Wait,
    accepted,
    come_back_to,
    confirmed,
    decide,
    ended,
)
from dom0.agent.status import Outcome
from dom0.engine.values import Container, State
from dom0.plan.container_plan import SlotPlan
from dom0.plan.desired import Rollout
from dom0.plan.memory import NO_VERSION, RefusedStep
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan
from dom0.plan.steps import StartContainer
from dom0.testing.builders import container, desired, slot

NOW = 1_000_000.0
WEB, DB = slot("web"), slot("db")
TIMES = Rollout(timeout=300.0, monitor=5.0)
NEW = Generation(
    number=2, created=NOW, cause="dom0 up", dom0_image="sha256:2", desired=desired(WEB, DB, rollout=TIMES), before=1
)
TRIED = replace(NEW, trial=60.0)
ON_TRIAL = replace(TRIED, outcome=Outcome.TRIAL, trial_until=NOW + 20.0)
FOREIGN = replace(NEW, outcome=Outcome.GOOD, foreign=True)
FAILED = replace(NEW, outcome=Outcome.FAILED, reason="web ended", said=("web: no such table",))


def planned(web: Phase = Phase.READY, reason: str = "", *, refused: int = 0, running: Container | None = None) -> Plan:
    """Of a machine on which all but `web` is ready. `refused`: times in a row that the Engine refused a step of it."""
    is_ready = web is Phase.READY
    refusal = RefusedStep(version=NO_VERSION, subject="web", message="web: no such device", code="x", count=refused)
    return Plan(
        steps=(),
        slots=(SlotPlan(slot=DB, phase=Phase.READY), SlotPlan(slot=WEB, phase=web, reason=reason, container=running)),
        problems=(),
        settled=is_ready,
        well=is_ready,
        refused=refusal if refused else None,
    )


WELL = planned()
STARTING = planned(Phase.STARTING, "its health check")


def follows(
    generation: Generation,
    plan: Plan,
    *,
    age: float = 10.0,
    well_for: float | None = None,
    now: float = NOW,
    is_left: bool = False,
) -> Transition:
    return decide(generation, plan, is_left=is_left, age=age, well_for=well_for, now=now)


@pytest.mark.parametrize(
    ("plan", "age", "well_for", "expected"),
    [
        (WELL, 10.0, 0.0, Wait(5.0, is_ready=True)),
        (WELL, 10.0, 4.5, Wait(0.5, is_ready=True)),
        (WELL, 10.0, 5.0, Accept()),
        (WELL, 310.0, 4.5, Wait(0.5, is_ready=True)),  # it was in time
        (WELL, 10.0, None, Wait(290.0)),  # there is still something to do
        (STARTING, 10.0, None, Wait(290.0)),
        (STARTING, 300.0, None, Fail("not ready within 300 s: web (its health check)")),
        (planned(Phase.CRASH_LOOP, "it ended 3 times"), 1.0, None, Fail("it ended 3 times")),
        (planned(Phase.UNHEALTHY, "its health check fails"), 1.0, None, Fail("its health check fails")),
        (planned(Phase.FAILED, refused=REFUSALS - 1), 1.0, None, Wait(299.0)),
        (planned(Phase.FAILED, refused=REFUSALS), 1.0, None, Fail("web: no such device")),
    ],
)
def test_a_pending_one_is_good_when_all_stays_well_and_fails_when_that_is_hopeless_or_too_late(
    plan: Plan, age: float, well_for: float | None, expected: Transition
) -> None:
    assert follows(NEW, plan, age=age, well_for=well_for) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW, Wait(20.0)),
        (NOW + 20.0, Expire()),
        (NOW + 1e9, Expire()),
        (NOW - 40.0, Wait(60.0)),
        (NOW - 41.0, RestartTrial()),
    ],
)
@pytest.mark.parametrize("plan", [WELL, STARTING, planned(Phase.CRASH_LOOP)])
def test_a_trial_ends_by_the_clock_alone(plan: Plan, now: float, expected: Transition) -> None:
    assert follows(ON_TRIAL, plan, now=now) == expected


@pytest.mark.parametrize("generation", [FAILED, replace(NEW, outcome=Outcome.EXPIRED)])
def test_one_that_was_left_is_gone_back_from_whatever_the_plan_says(generation: Generation) -> None:
    assert follows(generation, WELL, well_for=60.0, is_left=True) == GoBack()


@pytest.mark.parametrize("outcome", [Outcome.GOOD, Outcome.FAILED, Outcome.ABORTED])
def test_of_one_that_was_judged_nothing_becomes_any_more(outcome: Outcome) -> None:
    assert follows(replace(NEW, outcome=outcome), planned(Phase.CRASH_LOOP), age=1e6) == Wait()


def test_what_compose_ran_is_released_when_it_runs_as_before() -> None:
    running, ended = container(WEB), container(WEB, state=State.EXITED)
    here = container(DB)

    def plan(web: Container, *steps: StartContainer) -> Plan:
        slots = (
            SlotPlan(slot=DB, phase=Phase.READY, container=here),
            SlotPlan(slot=WEB, phase=Phase.READY, container=web),
        )
        return replace(WELL, slots=slots, steps=steps)

    start = StartContainer(lock="slot:web-1", reason="it does not run", slot=WEB, container_id=ended.id)
    assert follows(FOREIGN, plan(running)) == Release()
    assert follows(FOREIGN, plan(ended)) == Wait()
    assert follows(FOREIGN, plan(running, start)) == Wait()


def test_one_that_is_accepted_is_good_or_begins_its_trial() -> None:
    assert accepted(NEW, NOW).outcome is Outcome.GOOD
    assert accepted(TRIED, NOW) == replace(TRIED, outcome=Outcome.TRIAL, trial_until=NOW + 60.0)
    assert accepted(ON_TRIAL, NOW - 100.0).trial_until == NOW - 40.0


def test_a_confirmed_trial_is_good_and_one_that_was_not_judged_still_has_to_be() -> None:
    assert confirmed(ON_TRIAL) == replace(NEW, outcome=Outcome.GOOD)
    assert confirmed(TRIED) == NEW


def test_what_fails_or_is_replaced_is_no_trial_any_more() -> None:
    assert ended(ON_TRIAL, Outcome.EXPIRED, "late", ("web: hello",)) == replace(
        NEW, outcome=Outcome.EXPIRED, reason="late", said=("web: hello",)
    )
    assert ended(ON_TRIAL, Outcome.REPLACED) == replace(NEW, outcome=Outcome.REPLACED)


def test_one_that_was_good_is_so_again_and_one_that_failed_is_judged_again() -> None:
    was_good = replace(NEW, outcome=Outcome.GOOD)
    assert come_back_to(was_good, before=7, now=NOW, because="x") == replace(was_good, back_at=NOW, back_because="x")
    assert come_back_to(FAILED, before=7, now=NOW, because="x") == replace(NEW, before=7, back_at=NOW, back_because="x")
