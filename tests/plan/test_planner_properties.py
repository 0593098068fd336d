"""What holds for every plan, whatever was asked, found and remembered."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dom0.engine.values import Container, Endpoint, Health, State
from dom0.plan import labels
from dom0.plan.actual import Actual, slot_key
from dom0.plan.desired import Condition, Dependency, Desired, HealthTest, Order, Slot
from dom0.plan.memory import Memory, SlotVersion
from dom0.plan.planner import Plan, make_plan
from dom0.plan.steps import AnyStep, CreateContainer, RemoveContainer, StartContainer
from dom0.plan.text import say_step
from dom0.testing import virtual_time
from dom0.testing.box import Box
from dom0.testing.builders import NETWORK, NETWORK_ID, actual, asking, container, desired, slot

# Chance reaches any line, once: it says nothing of what is tested, and counting takes longer than the tests.
pytestmark = pytest.mark.no_cover

NOW = 1000.0
SERVICES = ("a", "b", "c", "d")
TIMES = st.sampled_from((0.0, 1.0, 500.0, NOW - 1, NOW, NOW + 1, NOW + 5000))
VERSIONS = st.sampled_from(("h1", "h2"))
IMAGES = st.sampled_from(("app", "app2"))


@st.composite
def slots(draw: st.DrawFn) -> tuple[Slot, ...]:
    """Services depend only on earlier ones: cycles are refused by the loader."""
    found: list[Slot] = []
    for at, service in enumerate(SERVICES):
        fields: dict[str, Any] = {
            "hash": draw(VERSIONS),
            "image": draw(IMAGES),
            "order": draw(st.sampled_from(Order)),
            "restart_policy": draw(st.sampled_from(("no", "always", "on-failure", "unless-stopped"))),
            "runs": draw(st.sampled_from((True, True, True, False))),
            "depends_on": tuple(
                Dependency(
                    service=other,
                    condition=draw(st.sampled_from(Condition)),
                    required=draw(st.booleans()),
                    restart=draw(st.booleans()),
                )
                for other in draw(st.sets(st.sampled_from(SERVICES[:at]), max_size=2) if at else st.just(set()))
            ),
        }
        parent = draw(st.sampled_from((None, *SERVICES[:at])))
        if draw(st.booleans()):
            fields["health"] = HealthTest(argv=("true",))
        for number in range(1, draw(st.integers(0, 2)) + 1):
            of = slot(service, number=number, **fields)
            found.append(of if parent is None else inside(of, parent))
    return tuple(found)


def inside(of: Slot, parent: str) -> Slot:
    return asking(replace(of, parents=(parent,), attachments=()), host={"network_mode": f"service:{parent}"})


@st.composite
def containers(draw: st.DrawFn) -> tuple[Container, ...]:
    found: dict[str, Container] = {}
    for at in range(draw(st.integers(0, 8))):
        of = slot(
            draw(st.sampled_from((*SERVICES, "orphan"))),
            number=draw(st.integers(1, 2)),
            hash=draw(VERSIONS),
            image=draw(IMAGES),
        )
        id_ = f"{at:012x}".ljust(64, "0")
        name = draw(st.sampled_from((of.name, f"{at:012x}_{of.name}")))
        if name in found:
            continue
        found[name] = container(
            of,
            id=id_,
            name=name,
            state=draw(st.sampled_from(State)),
            created=draw(TIMES),
            started=draw(TIMES),
            finished=draw(TIMES),
            exit_code=draw(st.sampled_from((0, 1))),
            health=draw(st.sampled_from(Health)),
            restart_policy=draw(st.sampled_from(("no", "always", ""))),
            network_mode=draw(st.sampled_from(("", f"container:{0:064x}", f"container:{'f' * 64}"))),
            endpoints=draw(st.sampled_from(((), (endpoint(NETWORK_ID),), (endpoint("x"),)))),
        )
    return tuple(found.values())


def endpoint(network_id: str) -> Endpoint:
    return Endpoint(network=NETWORK, network_id=network_id)


@st.composite
def memories(draw: st.DrawFn, ids: tuple[str, ...]) -> Memory:
    def some(values: st.SearchStrategy[Any]) -> dict[str, Any]:
        return draw(st.dictionaries(st.sampled_from(ids), values, max_size=4)) if ids else {}

    keys = st.sampled_from([f"{service}-{number}" for service in SERVICES for number in (1, 2)])
    versions = st.builds(
        SlotVersion, VERSIONS, st.sampled_from([slot("a", image=image).image_id for image in ("app", "app2")])
    )
    by_slot = st.dictionaries(keys, versions, max_size=3)
    return Memory(
        stopped_by_person=some(TIMES),
        stopped=some(TIMES),
        crashes=some(st.lists(TIMES, max_size=12).map(tuple)),
        health_passed=some(TIMES),
        stop_expected=some(TIMES),
        completed=draw(by_slot),
        crash_loops=draw(by_slot),
        last_good=draw(by_slot),
        pending=draw(st.booleans()),
        recreate=tuple(some(TIMES)),
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[Desired, Actual, Memory]:
    found = draw(containers())
    foreign = draw(st.sampled_from(({}, {"box-a-1": "f" * 64})))
    names = {name: id_ for name, id_ in foreign.items() if name not in {c.name for c in found}}
    return (
        desired(*draw(slots())),
        actual(*found, foreign=names),
        draw(memories(tuple(c.id for c in found))),
    )


@settings(max_examples=300)
@given(situations())
def test_every_plan_is_sane(situation: tuple[Desired, Actual, Memory]) -> None:
    want, found, memory = situation
    plan = make_plan(want, found, memory, NOW)
    assert [p.slot.key for p in plan.slots] == [s.key for s in want.slots]
    assert_touches_only_ours(plan, found)
    assert_removes_nothing_that_runs(plan, found)
    assert_agrees_with_itself(plan)
    assert_says_when_to_look_again(plan)
    assert make_plan(want, found, memory, NOW) == plan


def assert_touches_only_ours(plan: Plan, found: Actual) -> None:
    ours = {c.id for c in found.containers}
    for step in plan.steps:
        assert getattr(step, "container_id", None) in {None, *ours}, say_step(step)
        if isinstance(step, CreateContainer):
            assert step.name not in found.names, say_step(step)
            assert set(step.parents.values()) <= ours


def assert_removes_nothing_that_runs(plan: Plan, found: Actual) -> None:
    state = {c.id: c for c in found.containers}
    current = {p.container.id for p in plan.slots if p.container is not None and p.container.running}
    for step in plan.steps:
        if isinstance(step, RemoveContainer):
            assert not state[step.container_id].running, say_step(step)
            assert step.container_id not in current


def assert_agrees_with_itself(plan: Plan) -> None:
    """Steps with one lock are done one after the other, in any order: they must be of one kind."""
    by_lock: dict[str, list[AnyStep]] = defaultdict(list)
    by_container: dict[str, list[AnyStep]] = defaultdict(list)
    for step in plan.steps:
        by_lock[step.lock].append(step)
        if id_ := getattr(step, "container_id", ""):
            by_container[id_].append(step)
    for steps in (*by_lock.values(), *by_container.values()):
        assert len({type(step) for step in steps}) == 1, [say_step(step) for step in steps]
    assert all(len(steps) == 1 for steps in by_container.values())


def assert_says_when_to_look_again(plan: Plan) -> None:
    assert plan.retry_at == 0.0 or plan.retry_at > NOW
    if plan.settled:
        assert plan.steps == ()


@settings(max_examples=100)
@given(slots())
def test_what_is_as_asked_needs_nothing(wanted: tuple[Slot, ...]) -> None:
    wanted = tuple(replace(of, health=None) for of in wanted)
    made = {of.key: as_asked(of) for of in wanted}
    found = tuple(replace(c, network_mode=mode_of(of, made)) for of, c in zip(wanted, made.values(), strict=True))
    plan = make_plan(desired(*wanted), actual(*found), Memory(), NOW)
    assert ([say_step(step) for step in plan.steps], plan.settled, plan.well) == ([], True, True)


def as_asked(of: Slot) -> Container:
    endpoints = tuple(Endpoint(network=a.network, network_id=NETWORK_ID) for a in of.attachments)
    return container(of, state=State.RUNNING if of.runs else State.CREATED, endpoints=endpoints)


def mode_of(of: Slot, made: dict[str, Container]) -> str:
    owner = made.get(f"{of.parents[0]}-1") if of.parents else None
    return f"container:{owner.id}" if owner is not None else ""


@settings(max_examples=30, deadline=None)
@given(slots(), slots())
def test_the_loop_comes_to_rest_from_one_desired_state_to_another(
    before: tuple[Slot, ...], after: tuple[Slot, ...]
) -> None:
    """Where everything that is asked for can be had: it ends, with nothing left over."""
    before, after = possible(before), possible(after)

    async def main() -> None:
        box = Box(desired(*before))
        async with box.running() as loop:
            await box.at_rest()
            box.aim(desired(*after), memory=Memory())
            await box.at_rest()
            assert loop.plan is not None
            assert {c.labels["dom0.service"] for c in box.docker.containers.values()} <= {s.service for s in after}
            assert not [step for step in loop.plan.steps if isinstance(step, CreateContainer | StartContainer)]

    virtual_time.run(main())


def possible(wanted: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Without health commands, and without a wait for what never comes, or never ends."""
    found: list[Slot] = []
    for of in wanted:
        there = {other.service for other in found if other.runs}
        needs = tuple(replace(d, condition=Condition.STARTED) for d in of.depends_on if d.service in there)
        if set(of.parents) <= there:
            found.append(replace(hashed(of), health=None, depends_on=needs))
    return tuple(found)


def hashed(of: Slot) -> Slot:
    """Whose namespaces it shares is a part of its hash, as in plan/hashing."""
    digest = " in ".join((of.hash, *of.parents))
    return asking(replace(of, hash=digest), labels=of.create.labels | {labels.HASH: digest})


def test_slot_keys_in_labels_are_those_of_slots() -> None:
    of = slot("a", number=2)
    assert slot_key(container(of)) == of.key
