"""The agent and ambassadors that say what a test wants, on the fake Engine and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.agent import shortcut
from dom0.agent.ambassadors import DRAIN_EVERY, DRAINED_WITHIN, HELD_WITHIN, LEAVE_WITHIN, PATIENCE, Ambassadors
from dom0.agent.progress import Changes
from dom0.agent.readiness import Readiness, ReadyStarts
from dom0.ambassador.messages import Flows, Follow, Rewire, State, Undo
from dom0.engine.bodies import EndpointSettings, HealthConfig, NetworkingConfig
from dom0.engine.values import Image
from dom0.errors import Dom0Error, UsageError
from dom0.health import Problem, Severity
from dom0.plan import labels
from dom0.plan.desired import Slot
from dom0.testing.builders import NETWORK, PROJECT, asking, image_id, slot
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import Call, FakeEngine
from dom0.testing.fake_talk import FakeTalk, make_flow, make_receipt, make_state
from dom0.testing.virtual_time import LoopClock

FOLLOWS = "service:web:80"


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fake Engine's containers have none, and no namespace of this machine is meant."""
    monkeypatch.setattr(shortcut, "PROC", tmp_path)


class Bench:
    def __init__(self, talk: FakeTalk) -> None:
        self.docker = FakeDocker()
        self.docker.images.all[image_id("app")] = Image(id=image_id("app"), tags=("app:latest",))
        self.docker.networks.make(NETWORK, {}, "bridge")
        self.engine = FakeEngine(self.docker)
        self.talk = talk
        self.watched = FakeEngine(self.docker)  # as they see it
        self.readiness, self.changed = Readiness(), Changes()
        self.readiness.now = ReadyStarts(PROJECT)
        self.ambassadors = Ambassadors(self.watched, self.readiness, self.changed, talk=talk, clock=LoopClock())

    async def start(self, of: Slot, *, forwards: bool = False) -> str:
        own = {labels.AMBASSADOR: "true"} if forwards else {}
        networking = NetworkingConfig(endpoints_config={NETWORK: EndpointSettings()})
        create = replace(of.create, image=image_id("app"), labels=of.create.labels | own, networking_config=networking)
        container_id = await self.engine.create_container(of.name, create)
        await self.engine.start_container(container_id)
        return container_id

    def address(self, name: str) -> str:
        return self.docker.container(name).endpoints[NETWORK].ip_address

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.ambassadors.run())
            yield
            self.ambassadors.close()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(600):
            while not condition():  # noqa: ASYNC110 -- nothing tells of every condition
                await asyncio.sleep(0.05)

    def follows(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the ambassador was told last: addresses of `web`, and what is awaited."""
        last = [request for request in self.talk.asked if isinstance(request, Follow)][-1]
        return last.found["service:web"], last.awaited

    def codes(self) -> list[str]:
        return [problem.code for problem in self.ambassadors.problems]


async def test_containers_behind_its_sources_are_told_and_told_again_when_they_change() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    await bench.start(slot("echo"), forwards=True)
    await bench.start(slot("web"))
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        assert bench.talk.told == [{"service:web": (bench.address("box-web-1"),)}]
        await bench.start(slot("web", number=2))
        both = tuple(sorted((bench.address("box-web-1"), bench.address("box-web-2"))))
        await bench.until(lambda: bench.talk.told[-1] == {"service:web": both})
        await bench.engine.stop_container("box-web-1", timeout=1)
        await bench.until(lambda: bench.talk.told[-1] == {"service:web": (bench.address("box-web-2"),)})


async def test_where_there_is_none_the_engine_is_asked_nothing_while_containers_come_and_go() -> None:
    bench, asked = Bench(FakeTalk(make_state(FOLLOWS))), list[Call]()
    async with bench.running():
        await asyncio.sleep(1)
        bench.watched.before = asked.append
        for name in ("web", "db"):
            await bench.start(slot(name))
        await asyncio.sleep(1)
        assert asked == []
        await bench.start(slot("echo"), forwards=True)
        await bench.until(lambda: bench.talk.told)


async def test_one_whose_gate_has_passed_is_told_before_the_engine_has_looked() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    await bench.start(slot("echo"), forwards=True)
    check = HealthConfig(test=("CMD", "true"), interval=3600 * 10**9)
    web = slot("web")
    container_id = await bench.start(asking(web, healthcheck=check))
    async with bench.running():
        await bench.until(lambda: bench.talk.told == [{"service:web": ()}])
        gated = {container_id: bench.docker.container(container_id).started}
        bench.readiness.now = ReadyStarts(PROJECT, gated)
        bench.changed.tell()
        async with asyncio.timeout(1):
            await bench.until(lambda: bench.talk.told[-1] == {"service:web": (bench.address("box-web-1"),)})


async def test_those_that_run_already_are_found_as_soon_as_the_project_is_known() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    bench.readiness.now = ReadyStarts()
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await asyncio.sleep(1)
        assert bench.ambassadors.status() == []
        bench.readiness.now = ReadyStarts(PROJECT)
        bench.changed.tell()
        async with asyncio.timeout(1):
            await bench.until(lambda: [one.service for one in bench.ambassadors.status()] == ["echo"])


async def test_an_ambassador_that_was_just_replaced_is_asked_in_its_new_container() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    old = await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        await bench.engine.remove_container(old, force=True)
        new = await bench.start(slot("echo"), forwards=True)
        await bench.ambassadors.rewire("echo", Rewire(to=("10.0.0.5:80",)))
        assert bench.talk.asked_of[-1] == new


async def test_nothing_is_told_twice_and_nothing_to_one_that_follows_nobody() -> None:
    bench = Bench(FakeTalk(make_state("10.0.0.4:80")))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.watched)
        await asyncio.sleep(300)
        assert bench.talk.asked == []
        bench.talk.say(make_state(FOLLOWS))
        await asyncio.sleep(300)
        assert len(bench.talk.told) == 1


async def test_a_restarted_ambassador_is_listened_to_and_told_again() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    container_id = await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        await bench.engine.stop_container(container_id, timeout=1)
        await asyncio.sleep(1)
        await bench.engine.start_container(container_id)
        await bench.until(lambda: len(bench.talk.watched) > 1 and len(bench.talk.told) > 1)


async def test_one_that_cannot_be_asked_is_a_problem_after_a_while_and_none_when_it_answers() -> None:
    bench = Bench(FakeTalk(None))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.ambassadors.status() and bench.ambassadors.status()[0].error)
        assert bench.codes() == []
        await asyncio.sleep(PATIENCE)
        assert bench.codes() == ["ambassador-silent"]
        bench.talk.say(make_state())
        await bench.until(lambda: bench.codes() == [])


async def test_its_own_problems_are_told_with_its_name() -> None:
    problem = Problem(code="ambassador-name", subject="db", title="the name db is not found")
    bench = Bench(FakeTalk(make_state(problems=(problem,))))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(bench.codes)
        assert bench.ambassadors.problems == (replace(problem, subject="echo db"),)


async def test_a_rewire_to_a_container_tells_first_where_that_is() -> None:
    bench = Bench(FakeTalk(make_state("10.0.0.4:80")))
    await bench.start(slot("echo"), forwards=True)
    await bench.start(slot("web"))
    async with bench.running():
        await bench.until(bench.ambassadors.status)
        rewired = await bench.ambassadors.rewire("echo", Rewire(to=("service:web",)))
        assert rewired.receipt == make_receipt(kept=2)
        kinds = [type(request) for request in bench.talk.asked]
        assert kinds.index(Follow) < kinds.index(Rewire)
        assert bench.talk.told[0] == {"service:web": (bench.address("box-web-1"),)}


async def test_what_the_ambassador_refuses_is_refused_in_its_words() -> None:
    bench = Bench(FakeTalk(make_state(), refusal=UsageError("to: a loop", hint="name the provider")))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(bench.ambassadors.status)
        with pytest.raises(UsageError, match="to: a loop"):
            await bench.ambassadors.rewire("box-echo-1", Rewire(to=("10.0.0.9:80",)))
        with pytest.raises(UsageError, match="nobody: is no ambassador"):
            await bench.ambassadors.undo("nobody", Undo())


async def test_a_request_to_a_silent_one_says_that_it_forwards_on() -> None:
    bench = Bench(FakeTalk(None))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(bench.ambassadors.status)
        with pytest.raises(Dom0Error, match="box-echo-1: cannot be asked: nobody in it listens") as refused:
            await bench.ambassadors.history("echo")
        assert "it forwards as before" in refused.value.hint


async def test_one_of_another_project_or_without_the_label_is_not_asked() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    await bench.start(slot("web"))
    foreign = slot("echo")
    own = {labels.AMBASSADOR: "true", labels.PROJECT: "other", labels.ROLE: "service"}
    await bench.start(asking(foreign, labels=own))
    async with bench.running():
        await asyncio.sleep(300)
        assert (bench.ambassadors.status(), bench.talk.watched) == ([], [])


async def test_one_that_is_removed_is_forgotten() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    container_id = await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        await bench.engine.remove_container(container_id, force=True)
        await bench.until(lambda: not bench.ambassadors.status())
        assert bench.codes() == []


async def test_an_engine_that_goes_away_and_comes_back_is_looked_at_anew() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    await bench.start(slot("echo", restart_policy="always"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        bench.docker.stop_engine(crash=True)
        await asyncio.sleep(60)
        bench.docker.start_engine()
        await bench.engine.start_container("box-echo-1")
        await bench.start(slot("web"))
        await bench.until(lambda: bench.talk.told[-1] == {"service:web": (bench.address("box-web-1"),)})


async def test_who_stops_a_container_waits_until_others_are_told() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    await bench.start(slot("echo"), forwards=True)
    one, two = [await bench.start(slot("web", number=number)) for number in (1, 2)]
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        async with bench.ambassadors.leaving(one, comes_back=True):
            assert bench.follows() == ((bench.address("box-web-2"),), ())
            async with bench.ambassadors.leaving(two, comes_back=True):
                assert bench.follows() == ((), ("service:web",))
            async with bench.ambassadors.leaving(two, comes_back=False):
                assert bench.follows()[0] == ()
            await bench.engine.stop_container(one, timeout=1)
        await bench.until(lambda: bench.talk.told[-1] == {"service:web": (bench.address("box-web-2"),)})


async def test_before_the_first_look_it_waits_for_that() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS)))
    await bench.start(slot("echo"), forwards=True)
    web = await bench.start(slot("web"))
    async with bench.running(), bench.ambassadors.leaving(web, comes_back=True):
        assert bench.follows() == ((), ("service:web",))


async def test_one_that_does_not_answer_prevents_no_stop() -> None:
    bench = Bench(FakeTalk(None))
    await bench.start(slot("echo"), forwards=True)
    web = await bench.start(slot("web"))
    bench.talk.hangs = True
    async with bench.running():
        await bench.until(bench.ambassadors.status)
        began = asyncio.get_running_loop().time()
        async with bench.ambassadors.leaving(web, comes_back=True):
            assert asyncio.get_running_loop().time() == began + LEAVE_WITHIN


async def test_one_that_falls_silent_while_old_connections_drain_prevents_no_stop() -> None:
    bench = Bench(FakeTalk(make_state(FOLLOWS, existing={"80/tcp": "drain=30s"})))
    await bench.start(slot("echo"), forwards=True)
    web = await bench.start(slot("web"))
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        bench.talk.hangs_at = Flows
        began = asyncio.get_running_loop().time()
        async with bench.ambassadors.leaving(web, comes_back=True):
            assert asyncio.get_running_loop().time() == began + LEAVE_WITHIN


async def test_old_connections_have_time_and_no_more_than_they_need() -> None:
    state = make_state(FOLLOWS, existing={"80/tcp": "drain=30s"})
    bench = Bench(FakeTalk(state))
    await bench.start(slot("echo"), forwards=True)
    web = await bench.start(slot("web"))
    flow = make_flow(bench.address("box-web-1"))
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        for flows, listener, least, most in (
            ((flow,), state.listeners[0], DRAINED_WITHIN, DRAINED_WITHIN + DRAIN_EVERY),
            ((flow,), replace(state.listeners[0], down="hold"), HELD_WITHIN, HELD_WITHIN + DRAIN_EVERY),
            ((replace(flow, state="TIME_WAIT"), make_flow("10.0.0.77")), state.listeners[0], 0.0, 0.0),
        ):
            bench.talk.flows = flows
            bench.talk.say(replace(state, listeners=(listener,)))
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            async with bench.ambassadors.leaving(web, comes_back=True):
                assert least <= asyncio.get_running_loop().time() - began <= most


FAR = "node:nas/service:redis:6379"


async def test_what_is_on_other_nodes_is_wanted_of_the_farm_and_told_as_far_as_it_is_known() -> None:
    bench = Bench(FakeTalk(make_state(FAR, FOLLOWS)))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        assert bench.ambassadors.wanted_far == frozenset({FAR})
        began = asyncio.get_running_loop().time()
        bench.ambassadors.tell_far({FAR: ("10.9.0.1:6379",), "node:pi/service:x:1": ()}, {})
        await bench.until(lambda: len(bench.talk.told) == 2)
        bench.ambassadors.tell_far({}, {FAR: "nas has said nothing"})
        await bench.until(lambda: len(bench.talk.told) == 3)
        assert asyncio.get_running_loop().time() - began < 1, "and did not wait for its next look at all"
        near = {"service:web": ()}
        assert bench.talk.told == [near, near | {FAR: ("10.9.0.1:6379",)}, near]


async def test_why_something_is_not_found_on_another_node_is_a_problem_in_the_place_of_the_ambassadors_own() -> None:
    missing = Problem(code="ambassador-source", subject=FAR, title=f"{FAR} is not found")
    bench = Bench(FakeTalk(make_state(FAR)))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.talk.told)
        bench.ambassadors.tell_far({}, {FAR: "nas has said nothing"})
        (kept,) = bench.ambassadors.problems
        assert (kept.code, kept.subject, kept.title) == ("ambassador-node", f"echo {FAR}", "nas has said nothing")
        assert (kept.severity, kept.hint) == (Severity.WARNING, "connections go to where it was")
        bench.talk.say(make_state(FAR, problems=(missing,)))
        await bench.until(lambda: bench.ambassadors.problems[0].severity is Severity.ERROR)
        assert bench.codes() == ["ambassador-node"]
        bench.ambassadors.tell_far({}, {})
        assert bench.codes() == ["ambassador-source"]


async def test_a_rewire_to_another_node_waits_for_the_farm_or_says_why_it_is_nowhere() -> None:
    bench = Bench(FakeTalk(make_state("10.0.0.4:80")))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(bench.ambassadors.status)
        rewiring = asyncio.create_task(bench.ambassadors.rewire("echo", Rewire(to=(FAR,))))
        await bench.until(lambda: bench.ambassadors.wanted_far == frozenset({FAR}))
        bench.ambassadors.tell_far({FAR: ("10.9.0.1:6379",)}, {})
        await rewiring
        assert bench.talk.told[-1] == {FAR: ("10.9.0.1:6379",)}
        assert bench.ambassadors.wanted_far == frozenset()
        bench.ambassadors.tell_far({FAR: ()}, {FAR: "nas is no node of the farm"})
        with pytest.raises(Dom0Error, match=f"to: {FAR}: nas is no node of the farm"):
            await bench.ambassadors.rewire("echo", Rewire(to=(FAR,)))


WAYS = (
    ("80/tcp", frozenset({FAR})),
    ("81/tcp", frozenset({f"plaintext:{FAR}"})),
    ("81", frozenset({f"plaintext:{FAR}"})),
    ("", frozenset({FAR, f"plaintext:{FAR}"})),
)


async def test_a_rewire_to_another_node_goes_as_the_listener_does() -> None:
    state = make_state("10.0.0.4:80")
    plain = replace(state.listeners[0], listener="81/tcp", plaintext=True)
    bench = Bench(FakeTalk(replace(state, listeners=(*state.listeners, plain))))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.ambassadors.status() and bench.ambassadors.status()[0].state)
        for listener, wants in WAYS:
            rewiring = asyncio.create_task(bench.ambassadors.rewire("echo", Rewire(to=(FAR,), listener=listener)))
            await bench.until(lambda: bench.ambassadors.wanted_far)
            assert bench.ambassadors.wanted_far == wants
            bench.ambassadors.tell_far(dict.fromkeys(wants, ("10.9.0.1:6379",)), {})
            await rewiring
            bench.ambassadors.tell_far({}, {})


@pytest.mark.parametrize(("to", "listener"), [(FAR, "53/udp"), (FAR, "53-54/udp"), (f"plaintext:{FAR}", "80")])
async def test_what_the_ambassador_refuses_is_asked_of_no_other_node(to: str, listener: str) -> None:
    state = make_state("10.0.0.4:80")
    udp = [replace(state.listeners[0], listener=f"{port}/udp", plaintext=True) for port in (53, 54)]
    none = replace(state.listeners[0], listener="none of an ambassador of ours")
    listeners = (*state.listeners, *udp, none)
    bench = Bench(FakeTalk(replace(state, listeners=listeners), refusal=UsageError("to: refused")))
    await bench.start(slot("echo"), forwards=True)
    async with bench.running():
        await bench.until(lambda: bench.ambassadors.status() and bench.ambassadors.status()[0].state)
        bench.ambassadors.tell_far({FAR: (), f"plaintext:{FAR}": ()}, dict.fromkeys([FAR, f"plaintext:{FAR}"], "gone"))
        with pytest.raises(UsageError, match="to: refused"):
            await bench.ambassadors.rewire("echo", Rewire(to=(to,), listener=listener))


class SlowTalk(FakeTalk):
    """It says nothing until `heard` is set."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.heard = asyncio.Event()

    async def watch(self, container_id: str) -> AsyncGenerator[State, None]:
        self.asked_of.append(container_id)
        await self.heard.wait()
        async for state in super().watch(container_id):
            yield state


async def test_what_is_wanted_of_other_nodes_is_not_known_until_all_ambassadors_were_heard() -> None:
    talk = SlowTalk(make_state(FAR))
    bench = Bench(talk)
    await bench.start(slot("echo"), forwards=True)
    assert bench.ambassadors.wanted_far is None, "and that is not nothing"
    async with bench.running():
        await bench.until(lambda: talk.asked_of)
        assert bench.ambassadors.wanted_far is None
        talk.heard.set()
        await bench.until(lambda: bench.ambassadors.wanted_far == frozenset({FAR}))
        talk.say(make_state("10.0.0.4:80"))
        await bench.until(lambda: bench.ambassadors.wanted_far == frozenset())
