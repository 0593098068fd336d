"""What may be done while a generation is ready and not good yet, and while another dom0 image takes our place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dom0.agent.machine import Machine
from dom0.agent.status import GenerationInfo, Outcome, Progress, UpRequest
from dom0.errors import Busy, Dom0Error, ProjectError
from dom0.plan.desired import Rollout, Slot
from dom0.testing.builders import desired, slot
from dom0.testing.rig import NEW, Rig, broken

WATCHED = Rollout(monitor=60.0)


async def first_good(rig: Rig) -> None:
    await rig.outcome(Outcome.GOOD, 1)


async def ready(rig: Rig, *slots: Slot, image: str = "") -> Progress:
    """What is said when `dom0 up` of these has made everything ready. Nobody listens any more."""
    rig.project = desired(*slots, rollout=WATCHED)
    return await listen_until_ready(rig.machine, image)


async def begun(rig: Rig, *slots: Slot) -> AsyncGenerator[Progress]:
    """What `dom0 up` of these says after its first line."""
    rig.project = desired(*slots, rollout=WATCHED)
    lines = rig.machine.up(UpRequest())
    await anext(lines)
    return lines


async def listen_until_ready(machine: Machine, image: str = "") -> Progress:
    async for line in machine.up(UpRequest(dom0_image=image)):
        if line.watched_until:
            return line
    raise AssertionError("it was never ready")


def generation(machine: Machine) -> GenerationInfo:
    found = machine.status().generation
    assert found is not None
    return found


def outcomes(machine: Machine) -> dict[int, Outcome]:
    return {one.number: one.outcome for one in machine.history()}


async def crash(rig: Rig) -> None:
    """End the service of the second version each time that it runs, until dom0 has had enough of it."""
    while generation(rig.machine).number == 2:
        if rig.hashes() == {"h2"}:
            rig.box.docker.exit("box-web-1", 1)
        await asyncio.sleep(0.5)


async def test_up_says_when_all_is_ready_until_when_it_is_watched_and_what_it_goes_back_to(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        said = await ready(rig, slot("web", hash="h2"))
        assert (said.outcome, said.generation, said.goes_back_to, rig.hashes()) == (None, 2, 1, {"h2"})
        status = machine.status()
        assert 59.0 < said.watched_until - status.now <= 60.0
        assert (status.converged, generation(machine).outcome) == (True, Outcome.PENDING)
        assert (generation(machine).watched_until, generation(machine).goes_back_to) == (said.watched_until, 1)
        await rig.outcome(Outcome.GOOD, 2)
        assert 0.0 <= machine.status().now - said.watched_until < 1.0
        assert (generation(machine).watched_until, generation(machine).goes_back_to) == (0.0, 0)


async def test_what_ends_and_is_started_again_by_the_engine_between_two_looks_is_watched_anew(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        said = await ready(rig, slot("web", hash="h2", restart_policy="always"))
        await asyncio.sleep(30.0)
        rig.engine.latency = lambda call: 1.0 if call.name == "container" else 0.0  # by then it runs again
        rig.box.docker.exit("box-web-1", 1)
        await rig.box.until(lambda: generation(machine).watched_until > said.watched_until)
        await rig.outcome(Outcome.GOOD, 2)
        assert machine.status().now - said.watched_until > 29.0


async def test_a_first_generation_has_nothing_to_go_back_to(rig: Rig) -> None:
    rig.project = desired(slot("web"), rollout=WATCHED)
    async with rig.running() as machine:
        said = await listen_until_ready(machine)
        assert (said.generation, said.goes_back_to) == (1, 0)


async def test_what_does_not_become_ready_is_never_called_so(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        rig.project = desired(broken(slot("web", hash="h2")))
        lines = [line async for line in machine.up(UpRequest())]
        assert not any(line.watched_until for line in lines)
        assert lines[-1].outcome is Outcome.FAILED


async def test_what_fails_while_it_is_watched_goes_back_and_says_why(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        await ready(rig, slot("web", hash="h2", restart_policy="always"))
        await crash(rig)
        await rig.outcome(Outcome.FAILED, 2)
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert generation(machine).number == 1
        assert generation(machine).back_because.startswith("generation 2 failed: ")
        assert generation(machine).watched_until == 0.0


async def test_another_up_is_told_to_wait_only_until_all_is_ready(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        first = await begun(rig, slot("web", hash="h2"))
        with pytest.raises(Busy):
            await anext(machine.up(UpRequest(force=True)))
        async for line in first:
            if line.watched_until:
                break
        assert (await ready(rig, slot("web", hash="h3"))).generation == 3
        assert [line.outcome async for line in first][-1] is Outcome.REPLACED


async def test_who_follows_the_same_change_is_told_too_when_all_is_ready(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        first = await begun(rig, slot("web", hash="h2"))
        assert (await listen_until_ready(machine)).generation == 2
        assert [line.generation async for line in first if line.watched_until] == [2]


async def test_what_is_replaced_while_it_is_watched_is_never_gone_back_to(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        await ready(rig, slot("web", hash="h2"))
        assert (await ready(rig, slot("web", hash="h3"))).goes_back_to == 1
        rig.project = desired(broken(slot("web", hash="h4")))
        assert (await rig.up()).outcome is Outcome.FAILED
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert outcomes(machine) == {
            1: Outcome.GOOD,
            2: Outcome.REPLACED,
            3: Outcome.REPLACED,
            4: Outcome.FAILED,
        }


async def test_the_same_project_again_is_watched_anew(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        first = await ready(rig, slot("web", hash="h2"))
        await asyncio.sleep(30)
        again = await ready(rig, slot("web", hash="h2"))
        assert again.generation == first.generation == 2
        assert again.watched_until - first.watched_until >= 30
        await rig.outcome(Outcome.GOOD, 2)
        assert machine.status().now >= again.watched_until


async def test_a_refused_up_leaves_what_is_watched_as_it_is(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        said = await ready(rig, slot("web", hash="h2"))
        rig.refusal = ProjectError("services.web: nonsense")
        assert (await rig.up()).outcome is Outcome.FAILED
        assert generation(machine).watched_until == said.watched_until
        await rig.outcome(Outcome.GOOD, 2)


async def test_abort_ends_the_watch_and_goes_back(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        await ready(rig, slot("web", hash="h2"))
        await machine.abort()
        await rig.box.until(lambda: machine.status().converged and rig.hashes() == {"h1"})
        assert outcomes(machine) == {1: Outcome.GOOD, 2: Outcome.ABORTED}


async def test_rollback_ends_the_watch_and_goes_back(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        await ready(rig, slot("web", hash="h2"))
        assert [line async for line in machine.rollback(None)][-1].outcome is Outcome.GOOD
        assert rig.hashes() == {"h1"}
        assert outcomes(machine) == {1: Outcome.GOOD, 2: Outcome.REPLACED}


async def test_an_agent_that_is_killed_meanwhile_is_followed_by_one_that_watches_on(rig: Rig) -> None:
    async with rig.running():
        await first_good(rig)
        await ready(rig, slot("web", hash="h2"))
    async with rig.running() as machine:
        await rig.box.until(lambda: machine.status().converged)
        assert generation(machine).watched_until - machine.status().now > 59.0
        await rig.outcome(Outcome.GOOD, 2)


class GivingWay(Rig):
    """Whose hand-over lasts until the test says how it ends."""

    def begin(self) -> None:
        self.begun = asyncio.Event()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def hand_over(self, image: str) -> None:
        await super().hand_over(image)
        self.begun.set()
        await self.end


@asynccontextmanager
async def giving_way(rig: GivingWay) -> AsyncIterator[asyncio.Task[list[Progress]]]:
    """The second generation is good, its image is about to take our place, and somebody asks for the third."""
    rig.begin()
    async with rig.running() as machine:
        await first_good(rig)
        rig.project = desired(slot("web", hash="h2"))
        assert (await rig.up(image=NEW)).outcome is Outcome.GOOD
        await rig.begun.wait()
        assert any("hand over" in step for step in machine.status().steps)
        rig.project = desired(slot("web", hash="h3"))
        yield asyncio.create_task(collect(machine))
        if not rig.end.done():
            rig.end.set_result(None)


async def collect(machine: Machine) -> list[Progress]:
    return [line async for line in machine.up(UpRequest())]


@pytest.fixture
def giving(tmp_path_factory: pytest.TempPathFactory) -> GivingWay:
    return GivingWay(tmp_path_factory.mktemp("giving"))


async def test_nothing_begins_while_another_image_takes_our_place(giving: GivingWay) -> None:
    async with giving_way(giving) as asked:
        await asyncio.sleep(10)
        assert not asked.done()
        assert set(outcomes(giving.machine)) == {1, 2}
        giving.machine.close()
        with pytest.raises(Busy, match="is shutting down"):
            await asked


async def test_what_waited_for_it_goes_on_when_the_other_image_could_not_take_our_place(giving: GivingWay) -> None:
    async with giving_way(giving) as asked:
        await asyncio.sleep(1)
        giving.end.set_exception(Dom0Error("the new dom0 did not answer"))
        assert (await asked)[-1].outcome is Outcome.GOOD
        assert giving.hashes() == {"h3"}
        assert giving.handed_over[0] == NEW


async def test_an_image_does_not_take_over_while_the_next_project_is_brought(rig: Rig) -> None:
    async with rig.running() as machine:
        await first_good(rig)
        await ready(rig, slot("web", hash="h2"), image=NEW)
        rig.project, rig.pause = desired(slot("web", hash="h3"), rollout=Rollout(monitor=0.0)), 90.0
        lines = await collect(machine)  # the second one becomes good while the third is read
        assert outcomes(machine)[2] is Outcome.GOOD
        assert (lines[-1].outcome, rig.handed_over) == (Outcome.GOOD, [])
