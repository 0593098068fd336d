"""Every situation in which a root container can be found leads to an end, and never to two of them at once."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from dom0.agent.contract import RESTART
from dom0.agent.succession import (
    NEXT,
    PREVIOUS,
    Create,
    End,
    Remove,
    Rename,
    Result,
    RootContainers,
    SetRestart,
    Start,
    StartResult,
    Stop,
    SuccessionStep,
    Verify,
    decide,
    wanted_after_cut,
)
from dom0.engine.values import Container, State
from dom0.names import FAILED, ROOT

OLD, NEW = "sha256:old", "sha256:new"
FIELDS = {ROOT: "current", NEXT: "next", PREVIOUS: "previous", FAILED: "failed"}
STATES = (State.CREATED, State.RUNNING, State.EXITED, State.RESTARTING)


def container(name: str, image: str, state: State, policy: str = RESTART) -> Container:
    return Container(
        id=f"{name} {image}",
        name=name,
        image_id=image,
        image=image,
        labels={},
        state=state,
        created=1.0,
        restart_policy=policy,
    )


def situations() -> list[RootContainers]:
    images = (OLD, NEW)
    currents = [None, *(container(ROOT, i, s, p) for i in images for s in STATES for p in (RESTART, "no"))]
    nexts = [None, *(container(NEXT, image, State.CREATED) for image in images)]
    previous = [None, *(container(PREVIOUS, image, State.EXITED, "no") for image in images)]
    failed = [None, *(container(FAILED, image, State.EXITED, "no") for image in images)]
    return [RootContainers(*found) for found in itertools.product(currents, nexts, previous, failed)]


class World:
    """What the Engine would make of the steps; `good` says which images answer."""

    def __init__(self, found: RootContainers, good: set[str]) -> None:
        self.all = {c.name: c for c in (found.current, found.next, found.previous, found.failed) if c is not None}
        self.good = good
        self.answered = ""

    def found(self) -> RootContainers:
        return RootContainers(**{field: self.all.get(name) for name, field in FIELDS.items()})

    def put(self, changed: Container) -> None:
        self.all = {name: c for name, c in self.all.items() if c.id != changed.id} | {changed.name: changed}

    def do(self, step: SuccessionStep, wanted: str) -> StartResult | None:
        match step:
            case Create(name):
                assert name not in self.all
                self.put(container(name, wanted, State.CREATED))
            case Start(one):
                self.put(replace(one, state=State.RUNNING))
                return self.judge(one)
            case Verify(one):
                assert one.running
                return self.judge(one)
            case Stop(one):
                self.put(replace(one, state=State.EXITED))
            case Rename(one, name):
                assert name not in self.all
                self.put(replace(one, name=name))
            case SetRestart(one, policy):
                assert one.restart_policy != policy
                self.put(replace(one, restart_policy=policy))
            case Remove(one):
                del self.all[one.name]
        return None

    def judge(self, one: Container) -> StartResult:
        good = one.image_id in self.good
        if good:
            self.answered = one.image_id
        return StartResult(one.id, good=good, reason="" if good else "silent")

    def running(self) -> list[str]:
        return [c.name for c in self.all.values() if c.running]

    def settle(self, wanted: str) -> End:
        verdict = None
        for _ in range(40):
            step = decide(self.found(), wanted, verdict)
            if isinstance(step, End):
                return step
            verdict = self.do(step, wanted) or verdict
            assert self.running() in ([], [ROOT])
        raise AssertionError("no end")


@pytest.mark.parametrize("good", [{OLD, NEW}, {NEW}, {OLD}, set()], ids=["both", "new", "old", "none"])
def test_every_situation_comes_to_an_end(good: set[str]) -> None:
    for found in situations():
        world = World(found, good)
        end = world.settle(NEW)
        if end.result is Result.DONE:
            assert world.all.keys() == {ROOT}
            assert (world.all[ROOT].image_id, world.all[ROOT].running) == (NEW, True)
            assert world.all[ROOT].restart_policy == RESTART
        if end.result is Result.UNDONE:
            assert (world.all[ROOT].image_id, world.all[ROOT].running) == (OLD, True)


def was_refused(found: RootContainers) -> bool:
    """The new one was judged before: put aside, or stopped in order to be."""
    if found.failed is not None and found.failed.image_id == NEW:
        return True
    current = found.current
    return found.previous is not None and current is not None and current.state is State.EXITED


def test_a_new_one_that_answers_gets_the_place_unless_it_was_refused() -> None:
    for found in situations():
        if not was_refused(found):
            assert World(found, {OLD, NEW}).settle(NEW).result is Result.DONE


def test_the_old_one_is_back_when_the_new_one_is_silent() -> None:
    world = World(RootContainers(current=container(ROOT, OLD, State.RUNNING)), {OLD})
    assert world.settle(NEW).result is Result.UNDONE
    assert {name: (c.image_id, c.state, c.restart_policy) for name, c in world.all.items()} == {
        ROOT: (OLD, State.RUNNING, RESTART),
        FAILED: (NEW, State.EXITED, "no"),
    }


def test_the_old_one_is_not_stopped_before_the_new_one_is_created() -> None:
    found = RootContainers(current=container(ROOT, OLD, State.RUNNING))
    assert decide(found, NEW, None) == Create(NEXT)


def test_what_steps_aside_is_not_woken_by_the_engine() -> None:
    found = RootContainers(current=container(ROOT, OLD, State.RUNNING), next=container(NEXT, NEW, State.CREATED))
    assert found.current is not None
    assert decide(found, NEW, None) == SetRestart(found.current, "no")


def test_an_answer_counts_only_for_the_container_that_gave_it() -> None:
    current = container(ROOT, NEW, State.RUNNING)
    found = RootContainers(current=current, previous=container(PREVIOUS, OLD, State.EXITED, "no"))
    assert decide(found, NEW, StartResult("another", good=True)) == Verify(current)


def test_a_first_one_that_is_silent_is_left_for_reading() -> None:
    world = World(RootContainers(), set())
    assert world.settle(NEW) == End(Result.FAILED, "silent")
    assert world.all.keys() == {ROOT}


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (RootContainers(), ""),
        (RootContainers(current=container(ROOT, OLD, State.RUNNING)), ""),
        (RootContainers(current=container(ROOT, OLD, State.RUNNING), next=container(NEXT, NEW, State.CREATED)), OLD),
        (
            RootContainers(next=container(NEXT, NEW, State.CREATED), previous=container(PREVIOUS, OLD, State.EXITED)),
            OLD,
        ),
        (
            RootContainers(
                current=container(ROOT, NEW, State.RUNNING), previous=container(PREVIOUS, OLD, State.EXITED)
            ),
            NEW,
        ),
        (RootContainers(next=container(NEXT, NEW, State.CREATED)), NEW),
    ],
)
def test_a_change_that_was_cut_off_settles_on_what_ran_last(found: RootContainers, wanted: str) -> None:
    assert wanted_after_cut(found) == wanted
