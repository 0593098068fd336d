"""One root container takes the place of another on the fake Engine, killed before and after every single call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dom0.agent import handover
from dom0.agent.contract import root_body
from dom0.agent.succession import Result
from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, RestartPolicy
from dom0.engine.values import State
from dom0.errors import Busy, Conflict, EngineError, RolledBack
from dom0.names import FAILED, HANDOVER, ROOT
from dom0.plan.labels import ROLE
from dom0.testing import virtual_time
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import Call, FakeEngine, Killed

AGENT = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done")
MOST_CALLS = 120


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer questions to a silent one, so fewer calls to be killed at."""
    monkeypatch.setattr(handover, "PATIENCE", 3.0)


class Place:
    """An Engine with an old and a new dom0 image; `new` says how the new one behaves."""

    def __init__(self, new: str) -> None:
        self.docker = FakeDocker()
        self.old = self._add("dom0:old", AGENT, answers=True)
        command = ("sh", "-c", "exit 3") if new == "crashes" else AGENT
        self.new = self._add("dom0:new", command, answers=new == "answers")
        self.answers = new == "answers"

    def _add(self, tag: str, command: tuple[str, ...], *, answers: bool) -> str:
        health = ("CMD", *handover.CHECK) if answers else ()
        return self.docker.images.add(tag, labels={ROLE: "root"}, entrypoint=command, healthcheck_test=health)

    async def run_old(self) -> None:
        engine = FakeEngine(self.docker)
        await engine.create_container(ROOT, root_body(self.old))
        await engine.start_container(ROOT)

    def names(self) -> dict[str, tuple[str, State]]:
        tags = {self.old: "old", self.new: "new"}
        return {c.name: (tags[c.image_id], c.state) for c in self.docker.containers.values()}

    def watch(self, call: Call) -> None:
        """What holds at any moment."""
        assert len([name for name, (_, state) in self.names().items() if state is State.RUNNING]) <= 1
        assert not self.old_is_lost(), f"the old one is gone after {call}"

    def old_is_lost(self) -> bool:
        found = self.names().values()
        return not any(image == "old" for image, _ in found) and ("new", State.RUNNING) not in found

    def check_end(self) -> None:
        found = self.names()
        if self.answers:
            assert found == {ROOT: ("new", State.RUNNING)}
        else:
            assert found.pop(ROOT) == ("old", State.RUNNING)
            assert [name for name in found if name not in (FAILED, HANDOVER)] == []


def silent(line: str) -> None:
    return


def at(number: int, act: Callable[[], None]) -> Callable[[Call], None]:
    count = iter(range(MOST_CALLS * 100))

    def hook(call: Call) -> None:
        if next(count) == number:
            act()

    return hook


def die() -> None:
    raise Killed


async def try_settle(place: Place, engine: FakeEngine) -> bool:
    """Returns whether it came to its end."""
    try:
        await handover.settle(engine, place.new, silent)
    except (Killed, EngineError):
        return False
    return True


@pytest.mark.parametrize("new", ["answers", "silent", "crashes"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_kill_at_any_call_is_made_good_by_the_next_one(new: str, moment: str) -> None:
    for number in range(MOST_CALLS):
        place = Place(new)
        await place.run_old()
        engine = FakeEngine(place.docker)
        setattr(engine, moment, at(number, die))
        done = await try_settle(place, engine)
        place.watch(Call("kill"))
        again = FakeEngine(place.docker)
        again.after = place.watch
        await handover.settle(again, place.new, silent)
        place.check_end()
        if done:
            return
    raise AssertionError("more calls than are tried")


@pytest.mark.parametrize("new", ["answers", "silent"])
@pytest.mark.parametrize("crash", [False, True])
async def test_a_restart_of_the_engine_at_any_call_wakes_no_second_one(new: str, crash: bool) -> None:
    for number in range(MOST_CALLS):
        place = Place(new)
        await place.run_old()
        engine = FakeEngine(place.docker)
        engine.before = at(number, lambda place=place: place.docker.restart_engine(crash=crash))  # type: ignore[misc]
        engine.after = place.watch
        done = await try_settle(place, engine)
        await handover.settle(FakeEngine(place.docker), place.new, silent)
        assert place.names()[ROOT][1] is State.RUNNING
        if done and number > 60:
            return


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    new=st.sampled_from(["answers", "silent", "crashes"]),
    kills=st.lists(st.tuples(st.sampled_from(["before", "after"]), st.integers(0, 40)), max_size=6),
)
def test_kills_in_a_row_do_no_harm(new: str, kills: list[tuple[str, int]]) -> None:
    async def story() -> None:
        place = Place(new)
        await place.run_old()
        for moment, number in kills:
            engine = FakeEngine(place.docker)
            setattr(engine, moment, at(number, die))
            await try_settle(place, engine)
            place.watch(Call("kill"))
        await handover.settle(FakeEngine(place.docker), place.new, silent)
        place.check_end()

    virtual_time.run(story())


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_change_that_nobody_takes_up_again_is_put_right_by_recover(moment: str) -> None:
    for number in range(MOST_CALLS):
        place = Place("answers")
        await place.run_old()
        engine = FakeEngine(place.docker)
        setattr(engine, moment, at(number, die))
        done = await try_settle(place, engine)
        await handover.recover(FakeEngine(place.docker), silent)
        found = place.names()
        assert found.keys() == {ROOT}
        assert found[ROOT][1] is State.RUNNING or not _was_touched(place)
        if done:
            return
    raise AssertionError("more calls than are tried")


def _was_touched(place: Place) -> bool:
    return any(c.policy[0] != "always" for c in place.docker.containers.values())


async def test_the_first_root_container_is_started_in_place() -> None:
    place = Place("answers")
    await handover.start_root(FakeEngine(place.docker), place.new, silent)
    assert place.names() == {ROOT: ("new", State.RUNNING)}


async def test_a_stopped_root_container_of_the_same_image_is_started() -> None:
    place = Place("answers")
    engine = FakeEngine(place.docker)
    await handover.start_root(engine, place.new, silent)
    await engine.stop_container(ROOT)
    await handover.start_root(engine, place.new, silent)
    assert place.names() == {ROOT: ("new", State.RUNNING)}


async def test_a_foreign_container_with_our_name_is_not_touched() -> None:
    place = Place("answers")
    foreign = place.docker.images.add("other", entrypoint=AGENT)
    engine = FakeEngine(place.docker)
    await engine.create_container(ROOT, ContainerBody(image=foreign))
    assert await handover.has_traces(engine)
    with pytest.raises(Conflict, match="none of dom0's"):
        await handover.start_root(engine, place.new, silent)
    assert next(iter(place.docker.containers.values())).image_id == foreign
    assert len(place.docker.containers) == 1


async def test_nothing_begins_while_a_helper_is_at_work() -> None:
    place = Place("answers")
    await place.run_old()
    engine = FakeEngine(place.docker)
    await _create_helper(engine, place)
    await engine.start_container(HANDOVER)
    with pytest.raises(Busy):
        await handover.start_helper(engine, place.new)
    with pytest.raises(Busy):
        await handover.recover(engine, silent)


@pytest.mark.parametrize("name", [HANDOVER, FAILED, "dom0-next", "dom0-previous", "dom0-aside-0123456789ab"])
async def test_what_a_change_makes_or_leaves_is_seen_by_one_question(name: str) -> None:
    place = Place("answers")
    await place.run_old()
    engine = FakeEngine(place.docker)
    await engine.create_container("dom0-others", root_body(place.old))
    calls: list[str] = []
    engine.before = lambda call: calls.append(call.name)
    assert not await handover.has_traces(engine)
    assert calls == ["containers"]
    await engine.create_container(name, root_body(place.old))
    assert await handover.has_traces(engine)


async def test_what_the_engine_does_not_say_may_be_there() -> None:
    place = Place("answers")
    place.docker.stop_engine()
    assert await handover.has_traces(FakeEngine(place.docker))


async def test_a_helper_that_does_not_start_changes_nothing() -> None:
    place = Place("answers")
    await place.run_old()
    place.docker.refuse_start(HANDOVER, "no such file")
    with pytest.raises(EngineError, match="no such file"):
        await handover.hand_over(FakeEngine(place.docker), place.new, silent)
    assert place.names() == {ROOT: ("old", State.RUNNING)}


async def test_the_reason_of_a_change_that_was_undone_can_be_read_until_the_next_one() -> None:
    place = Place("silent")
    await place.run_old()
    engine = FakeEngine(place.docker)
    await _create_helper(engine, place)
    assert await handover.last_failure(engine) is None
    place.docker.container(HANDOVER).state = State.EXITED
    place.docker.container(HANDOVER).log.append((0.0, "stop dom0\nthe new one did not answer\n", ""))
    problem = await handover.last_failure(engine)
    assert problem is not None
    assert problem.title == "the new one did not answer"
    place.docker.container(HANDOVER).state = State.DEAD  # the Engine has no log of one that is being removed
    assert await handover.last_failure(engine) is None
    await handover.forget_failure(engine)
    assert await handover.last_failure(engine) is None


async def test_one_that_the_launcher_makes_at_the_same_moment_is_taken_as_it_is() -> None:
    place = Place("answers")
    engine, launcher = FakeEngine(place.docker), FakeEngine(place.docker)

    class Slower(FakeEngine):
        async def create_container(self, name: str, body: ContainerBody, *, platform: str = "") -> str:
            await launcher.create_container(ROOT, root_body(place.new))
            return await super().create_container(name, body, platform=platform)

    await handover.start_root(Slower(place.docker), place.new, silent)
    assert place.names() == {ROOT: ("new", State.RUNNING)}
    assert (await engine.container(ROOT)).running


async def test_what_the_launcher_moved_out_of_the_way_goes_with_the_next_change() -> None:
    place = Place("answers")
    await place.run_old()
    engine = FakeEngine(place.docker)
    for name in ("dom0-aside-0123456789ab", "dom0-others"):
        await engine.create_container(name, root_body(place.old))
    await handover.forget_failure(engine)
    assert place.names().keys() == {ROOT, "dom0-others"}


async def test_the_helper_says_why_it_went_back() -> None:
    place = Place("silent")
    await place.run_old()
    said: list[str] = []
    engine = FakeEngine(place.docker)
    await _create_helper(engine, place)
    await handover.run_helper(engine, place.new, said.append)
    assert "did not answer within" in said[-1]
    assert place.names()[FAILED] == ("new", State.EXITED)


async def test_the_helper_removes_itself_when_all_is_well() -> None:
    place = Place("answers")
    await place.run_old()
    engine = FakeEngine(place.docker)
    await _create_helper(engine, place)
    await handover.run_helper(engine, place.new, silent)
    assert place.names() == {ROOT: ("new", State.RUNNING)}


async def test_settle_reports_the_result() -> None:
    place = Place("crashes")
    await place.run_old()
    end = await handover.settle(FakeEngine(place.docker), place.new, silent)
    assert end.result is Result.UNDONE
    assert "exited with code 3" in end.reason


async def test_a_helper_that_crashes_again_and_again_is_taken_away() -> None:
    place = Place("answers")
    await place.run_old()
    engine = FakeEngine(place.docker)
    await _start_crashing_helper(engine, place)
    await asyncio.sleep(30)
    await handover.recover(engine, silent)
    assert place.names() == {ROOT: ("old", State.RUNNING)}


async def test_two_that_follow_a_helper_which_cannot_begin_are_told_that_the_old_one_runs() -> None:
    """The agent and the command both take it away; one of them comes too late."""
    place = Place("answers")
    await place.run_old()
    engine = FakeEngine(place.docker)
    await _start_crashing_helper(engine, place)
    followers = [handover.follow_helper(engine), handover.follow_helper(FakeEngine(place.docker))]
    ends = await asyncio.gather(*followers, return_exceptions=True)
    assert any(isinstance(end, RolledBack) for end in ends)
    assert all(end is None or isinstance(end, RolledBack) for end in ends), ends
    assert place.names() == {ROOT: ("old", State.RUNNING)}


async def _start_crashing_helper(engine: FakeEngine, place: Place) -> None:
    body = ContainerBody(
        image=place.new,
        entrypoint=("sh", "-c", "exit 1"),
        labels={ROLE: "handover"},
        host_config=HostConfig(restart_policy=RestartPolicy(name="on-failure")),
    )
    await engine.create_container(HANDOVER, body)
    await engine.start_container(HANDOVER)


async def _create_helper(engine: FakeEngine, place: Place) -> None:
    body = ContainerBody(
        image=place.new, entrypoint=AGENT, labels={ROLE: "handover"}, healthcheck=HealthConfig(test=("NONE",))
    )
    await engine.create_container(HANDOVER, body)
