"""Who goes to which revision when: in words, and at random beside nodes that do what they are told, or do not."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dom0.farms import lock, rollout
from dom0.farms.revisions import NETWORK, SLOTS, BaseOs, Blob, FarmImage, NodeReport, Revision, RoleContent, RoleState
from dom0.farms.rollout import (
    FETCH_WITHIN,
    REBOOT_WITHIN,
    SILENT,
    TURN_WITHIN,
    Lock,
    NodeTarget,
    NodeView,
    RolloutState,
    RolloutStep,
)
from dom0.farms.settings import FarmSettings, NetbootSettings, RoleSettings

NOW = 1_800_000_000.0
SOAK = 30.0


def content(text: str) -> RoleContent:
    blob = Blob(digest=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", size=1)
    return RoleContent(image=FarmImage(reference="dom0:latest", manifest=blob, config=blob, layers=(blob,)))


def revision(number: int, made: float = NOW, **roles: str) -> Revision:
    return Revision(number=number, made=made, roles={role: content(text) for role, text in roles.items()})


def base_os(version: str) -> BaseOs:
    return BaseOs(version=version, file=Blob(digest=f"sha256:{hashlib.sha256(version.encode()).hexdigest()}", size=1))


def of_role(**said: object) -> FarmSettings:
    return FarmSettings(name="attic", roles={"web": RoleSettings(**said)})  # type: ignore[arg-type]


class World:
    """A farm and its nodes. `bad`: contents that fail on every node. `told`: what a node has from the server."""

    def __init__(self, nodes: Mapping[str, str], settings: FarmSettings | None = None) -> None:
        self.settings = settings or of_role()
        self.now = NOW
        self.current: Revision | None = None
        self.since = 0.0
        self.state = RolloutState()
        self.nodes = {
            name: NodeView(name=name, role=role, report=NodeReport(), last=NOW) for name, role in nodes.items()
        }
        self.told: dict[str, NodeTarget] = {}
        self.bad: set[str] = set()
        self.gone: set[str] = set()
        self.cannot_fetch: set[str] = set()
        self.tried: list[tuple[str, str]] = []  # (node, content), when it begins
        self.before: dict[str, NodeReport] = {}  # what a node that tries goes back to
        self.contents: dict[int, Revision] = {}
        self.bad_os: set[str] = set()
        self.restarted: list[tuple[str, str]] = []  # (node, base OS), when it begins

    def publish(self, number: int, os: str = "", **roles: str) -> None:
        made = revision(number, self.now, **roles)
        self.current = self.contents[number] = replace(made, os=base_os(os)) if os else made
        self.since = self.now

    def back(self, number: int) -> None:
        self.current, self.since = self.contents[number], self.now

    def look(self) -> RolloutStep:
        nodes = [*self.nodes.values()]
        found = rollout.step(self.state, self.settings, self.current, nodes, self.now, since=self.since)
        self.state = found.state
        again = rollout.step(self.state, self.settings, self.current, nodes, self.now, since=self.since)
        assert (again.state, again.targets) == (found.state, found.targets)
        return found

    def hear(self, name: str) -> None:
        """The node says its word and gets its answer, and does the beginning of it."""
        if name in self.gone:
            return
        self.nodes[name] = node = replace(self.nodes[name], last=self.now)
        target, report = self.look().targets[name], node.report
        self.told[name] = target
        if target.fetch and name not in self.cannot_fetch:
            fetched = self.contents[target.fetch]
            os_fetched = fetched.os.file.digest if fetched.os and report.boots else ""
            report = replace(report, fetched=fetched.roles[node.role].digest, os_fetched=os_fetched)
        if target.run:
            wanted = self.contents[target.run].roles[node.role].digest
            is_well = report.content == wanted and report.state is RoleState.GOOD
            has_tried = report.content == wanted and (
                report.state is RoleState.TRYING or (report.state is RoleState.FAILED and report.turn == target.turn)
            )
            if not is_well and not has_tried:
                if report.state is not RoleState.TRYING:
                    self.before[name] = report
                self.tried.append((name, wanted))
                report = replace(report, content=wanted, revision=target.run, state=RoleState.TRYING)
            report = replace(report, turn=target.turn or report.turn)
        self.nodes[name] = replace(self.nodes[name], report=report)

    def end(self, name: str) -> None:
        """What the node tries ends, also where it is told to run nothing by now; after a kill it has to ask first."""
        report = self.nodes[name].report
        if name in self.told and name not in self.gone and report.state is RoleState.TRYING:
            is_bad = report.content in self.bad
            outcome = {"state": RoleState.FAILED, "reason": "web is unhealthy"} if is_bad else {"state": RoleState.GOOD}
            self.nodes[name] = replace(self.nodes[name], report=replace(report, **outcome))
        self.end_os(name)

    def end_os(self, name: str) -> None:
        """A restart ends, where its turn is about the base OS too."""
        report, target = self.nodes[name].report, self.told.get(name, NodeTarget())
        wanted = self.contents[target.run].os if target.turn else None
        if name in self.gone or report.state is not RoleState.GOOD or report.os_failed == target.turn:
            return
        if wanted is not None and not report.has_os(wanted):
            self.restarted.append((name, wanted.version))
            is_bad = wanted.version in self.bad_os
            after = {"os_failed": target.turn, "os_reason": "it went back"} if is_bad else {"os": wanted.version}
            self.nodes[name] = replace(self.nodes[name], report=replace(report, **after))

    def round(self, seconds: float = 11.0) -> None:
        """Everybody that is there is heard, and what it tries ends."""
        self.now += seconds
        for name in self.nodes:
            self.hear(name)
            self.end(name)

    def run(self, rounds: int = 60) -> RolloutStep:
        for _ in range(rounds):
            self.round()
        return self.look()

    def at(self, text: str) -> list[str]:
        wanted = content(text).digest
        return [
            name
            for name, node in self.nodes.items()
            if node.report.content == wanted and node.report.state is RoleState.GOOD
        ]

    def who_tried(self, text: str) -> list[str]:
        return [name for name, tried in self.tried if tried == content(text).digest]


def webs(count: int) -> dict[str, str]:
    return {f"pi{number}": "web" for number in range(1, count + 1)}


def settled(count: int = 3, **said: object) -> World:
    """Where all run "one"."""
    world = World(webs(count), of_role(**said))
    world.publish(1, web="one")
    world.run()
    assert len(world.at("one")) == count
    return world


def with_slots(count: int = 3, **said: object) -> World:
    """Where all run "one" on the base OS 1."""
    world = settled(count, **said)
    for name, node in world.nodes.items():
        world.nodes[name] = replace(node, report=replace(node.report, boots=SLOTS, os="1"))
    return world


def run_os(world: World, version: str) -> list[str]:
    return [name for name, node in world.nodes.items() if node.report.os == version]


def test_a_role_is_unwell_until_who_has_failed_in_it_is_well_or_is_not_waited_for() -> None:
    world = World({"pi1": "web", "pi2": "web"})
    world.publish(1, web="one")
    assert world.run().unwell == frozenset()
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    assert world.run().unwell == {"web"}
    failed = world.state
    world.state = rollout.resume(failed, ["web"])
    assert world.look().unwell == {"web"}
    world.state = rollout.drain(failed, "pi1")
    assert world.look().unwell == frozenset()
    world.state, world.now = failed, world.now + SILENT - 1
    assert world.look().due == world.nodes["pi1"].last + SILENT
    world.now += 1
    assert world.look().unwell == frozenset()
    world.back(1)
    assert world.run().unwell == frozenset()
    assert world.state.pauses == {}


def test_a_base_os_goes_to_the_canary_and_to_the_next_when_it_was_good_for_a_while() -> None:
    world = with_slots()
    world.publish(2, os="2", web="one")
    assert world.look().roles["web"] == "waits until pi1, pi2, pi3 have fetched revision 2"
    for name in world.nodes:
        world.hear(name)
    assert [target.turn for target in world.look().targets.values()] == [4, 0, 0]
    world.hear("pi1")
    world.end("pi1")
    assert world.look().roles["web"].startswith("waits: canary pi1 soaks until ")
    world.run()
    assert world.restarted == [("pi1", "2"), ("pi2", "2"), ("pi3", "2")]
    assert len(world.tried) == 3  # what they run was good before
    assert world.look().roles == {"web": ""}


def test_a_base_os_that_has_not_proved_itself_is_not_good_yet() -> None:
    world = with_slots()
    world.publish(2, os="2", web="one")
    world.round()
    world.round()
    (turn,) = world.state.turns
    report = world.nodes[turn].report
    assert report.os == "2"
    world.nodes[turn] = replace(world.nodes[turn], report=replace(report, os_trial=True))
    world.run()
    assert run_os(world, "2") == [turn]
    world.nodes[turn] = replace(world.nodes[turn], report=replace(report, os_trial=False))
    world.run()
    assert run_os(world, "2") == ["pi1", "pi2", "pi3"]


def test_a_bad_base_os_touches_one_node_until_somebody_says_what_to_do() -> None:
    world = with_slots(5, at_once=3)
    world.bad_os = {"2"}
    world.publish(2, os="2", web="one")
    assert world.run().roles == {"web": "role web is paused: pi1 failed: it went back"}
    assert world.restarted == [("pi1", "2")]
    world.state = rollout.resume(world.state, ["web"])
    world.run()
    assert world.restarted == [("pi1", "2")] * 2
    world.publish(3, os="3", web="one")
    world.run()
    assert len(run_os(world, "3")) == 5


def test_back_from_a_bad_base_os_nobody_restarts() -> None:
    world = with_slots()
    world.publish(2, os="1", web="one")
    world.run()
    world.bad_os = {"2"}
    world.publish(3, os="2", web="one")
    world.run()
    world.back(2)
    assert world.run().roles == {"web": ""}
    assert world.restarted == [("pi1", "2")]


def test_a_content_that_fails_keeps_the_base_os_from_being_tried() -> None:
    world = with_slots()
    world.bad.add(content("two").digest)
    world.publish(2, os="2", web="two")
    assert world.run().roles == {"web": "role web is paused: pi1 failed: web is unhealthy"}
    assert world.restarted == []


def test_a_node_without_slots_is_left_out_of_the_base_os() -> None:
    world = with_slots()
    world.nodes["pi2"] = replace(world.nodes["pi2"], report=replace(world.nodes["pi2"].report, boots=""))
    world.publish(2, os="2", web="one")
    assert world.run().roles == {"web": ""}
    assert world.restarted == [("pi1", "2"), ("pi3", "2")]


def test_a_node_that_starts_from_the_network_has_its_turn_where_the_farm_starts_machines() -> None:
    for netboot, expected in ((None, []), (NetbootSettings(interface="eth0", os="x"), ["pi1", "pi2", "pi3"])):
        world = with_slots()
        world.settings = replace(world.settings, netboot=netboot)
        for name, node in world.nodes.items():
            world.nodes[name] = replace(node, report=replace(node.report, boots=NETWORK))
        world.publish(2, os="2", web="one")
        assert world.run().roles == {"web": ""}
        assert run_os(world, "2") == expected


def test_who_restarts_with_the_lock_may_be_silent_for_longer() -> None:
    world = with_slots()
    world.publish(2, os="2", web="one")
    world.round()
    world.hear("pi1")
    world.state = lock.acquire(world.state, world.settings, Lock(group="web", id="pi1", since=world.now))
    world.gone = {"pi1"}
    world.now += REBOOT_WITHIN - 1
    assert world.look().state.pauses == {}
    world.now += 1
    assert world.look().roles["web"].startswith("role web is paused: pi1 is silent since ")
    world.gone = set()
    assert world.run().state.turns == {}
    assert world.restarted == []


def test_everybody_fetches_then_one_goes_and_the_next_when_it_was_good_for_a_while() -> None:
    world = settled()
    world.publish(2, web="two")
    found = world.look()
    assert {target.fetch for target in found.targets.values()} == {2}
    assert [target.run for target in found.targets.values()] == [0, 0, 0]
    assert found.roles["web"] == "waits until pi1, pi2, pi3 have fetched revision 2"
    assert found.due == world.now + FETCH_WITHIN
    for name in ("pi1", "pi2", "pi3"):
        world.hear(name)
    assert [target.run for target in world.look().targets.values()] == [2, 0, 0]
    assert world.look().roles["web"] == "waits: canary pi1 goes to revision 2"
    world.hear("pi1")
    world.end("pi1")
    found = world.look()
    assert found.roles["web"].startswith("waits: canary pi1 soaks until ")
    assert [target.why.partition(" ")[0] for target in found.targets.values()] == ["soaks", "waits:", "waits:"]
    world.now += SOAK - 0.1
    assert [target.run for target in world.look().targets.values()] == [2, 0, 0]
    assert world.look().due == pytest.approx(world.now + 0.1)
    world.now += 0.1
    assert [target.run for target in world.look().targets.values()] == [2, 2, 0]
    assert world.look().roles["web"] == "waits: pi2 goes to revision 2"
    world.run()
    assert len(world.at("two")) == 3
    assert world.look().roles == {"web": ""}


def test_a_bad_revision_touches_one_node_and_says_why() -> None:
    world = settled(5, at_once=3)
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    found = world.run()
    assert world.who_tried("two") == ["pi1"]
    assert found.roles == {"web": "role web is paused: pi1 failed: web is unhealthy"}
    assert found.targets["pi2"].why == found.roles["web"]
    assert {target.run for target in found.targets.values()} <= {0}


def test_resume_lets_the_node_that_failed_try_again_first_and_once() -> None:
    world = settled(5, at_once=3)
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    for _ in range(3):
        world.run(20)
        world.state = rollout.resume(world.state, ["web"])
    world.run(20)
    assert world.who_tried("two") == ["pi1"] * 4
    world.bad.clear()
    world.state = rollout.resume(world.state, ["web"])
    world.run()
    assert len(world.at("two")) == 5


def test_a_failure_late_in_the_roll_out_stops_there_and_is_tried_there_again() -> None:
    world = settled(5)
    world.publish(2, web="two")
    while len(world.at("two")) < 3:
        world.round()
    world.bad.add(content("two").digest)
    world.run(50)
    touched = world.who_tried("two")
    assert len(touched) == 4
    world.state = rollout.resume(world.state, ["web"])
    world.run(50)
    assert world.who_tried("two") == [*touched, touched[-1]]


def test_who_comes_back_meanwhile_does_not_try_what_has_failed_on_another() -> None:
    world = settled()
    world.gone = {"pi1"}
    world.now += SILENT
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    world.run()
    world.gone = set()
    world.run()
    world.state = rollout.resume(world.state, ["web"])
    world.run()
    assert world.who_tried("two") == ["pi2", "pi2"]


def test_who_comes_back_in_the_middle_of_its_turn_still_has_its_place() -> None:
    world = settled()
    world.publish(2, web="two")
    world.round()
    world.hear("pi1")
    world.gone = {"pi1"}
    world.now += SILENT
    world.look()
    world.gone = set()
    world.state = rollout.resume(world.state, ["web"])
    for name in ("pi1", "pi2", "pi3"):
        world.hear(name)
    found = world.look()
    assert found.state.turns == {}
    assert found.roles["web"] == "waits: pi1 comes to an end with what it was told before"
    world.run()
    assert len(world.at("two")) == 3
    assert world.who_tried("two") == ["pi1", "pi2", "pi3"]


def test_another_revision_lifts_the_pause_of_one_that_failed_and_no_persons() -> None:
    world = settled()
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    world.run()
    world.publish(3, web="three")
    world.run()
    assert len(world.at("three")) == 3
    world.state = rollout.pause(world.state, ["web"], world.now)
    world.publish(4, web="four")
    assert world.run().roles == {"web": "role web is paused: a person has paused it"}
    assert world.at("four") == []
    world.state = rollout.resume(world.state, ["web"])
    world.run()
    assert len(world.at("four")) == 3


def test_back_to_an_older_revision_touches_only_those_that_left_it() -> None:
    world = settled()
    world.publish(2, web="two")
    while not world.at("two"):
        world.round()
    world.back(1)
    touched = len(world.tried)
    world.run()
    assert world.tried[touched:] == [("pi1", content("one").digest)]
    assert len(world.at("one")) == 3


def test_the_canary_is_first_also_of_what_is_current_again() -> None:
    world = settled(canary="pi2")
    world.publish(2, web="two")
    world.run()
    assert len(world.at("two")) == 3
    assert world.now - world.contents[1].made > FETCH_WITHIN
    world.back(1)
    touched = len(world.tried)
    for name in ("pi3", "pi3", "pi1", "pi1"):
        world.hear(name)
    assert world.look().state.turns == {}
    world.run()
    assert [name for name, _ in world.tried[touched:]] == ["pi2", "pi1", "pi3"]


def test_a_role_that_a_revision_does_not_change_changes_nothing() -> None:
    world = World({"nas": "store", "pi1": "web"})
    world.publish(1, web="one", store="disk")
    world.run()
    world.publish(2, web="two", store="disk")
    world.run()
    assert [name for name, _ in world.tried] == ["nas", "pi1", "pi1"]


def test_a_paused_role_is_in_no_other_roles_way() -> None:
    world = World({"nas": "store", "pi1": "web"})
    world.bad.add(content("one").digest)
    world.publish(1, web="one", store="disk")
    found = world.run()
    assert world.at("disk") == ["nas"]
    assert found.roles == {"store": "", "web": "role web is paused: pi1 failed: web is unhealthy"}


def test_the_canary_of_the_settings_goes_first_unless_it_is_gone() -> None:
    for gone, first in ((set[str](), "pi3"), ({"pi3"}, "pi1")):
        world = settled(canary="pi3")
        world.gone = gone
        world.now += SILENT
        world.publish(2, web="two")
        world.round()
        world.run()
        assert world.who_tried("two")[0] == first


def test_who_was_gone_is_passed_over_and_goes_when_it_is_back() -> None:
    world = settled()
    world.gone = {"pi1"}
    world.now += SILENT
    world.publish(2, web="two")
    world.run()
    assert world.at("two") == ["pi2", "pi3"]
    assert world.look().targets["pi1"].why.startswith("silent since ")
    world.gone = set()
    world.run()
    assert len(world.at("two")) == 3


def test_who_falls_silent_in_its_turn_pauses_the_role() -> None:
    world = settled()
    world.publish(2, web="two")
    world.round()
    world.hear("pi1")
    world.gone = {"pi1"}
    found = world.run()
    assert world.who_tried("two") == ["pi1"]
    assert found.roles["web"].startswith("role web is paused: pi1 is silent since ")
    world.state = rollout.resume(world.state, ["web"])
    world.run()
    assert world.at("two") == ["pi2", "pi3"]


def test_who_was_gone_before_it_heard_of_its_turn_pauses_nothing() -> None:
    world = settled()
    world.publish(2, web="two")
    world.round()
    world.gone = {"pi1"}  # its turn was noted, and it never asked
    assert world.look().targets["pi1"].run == 2
    world.tried.clear()
    world.nodes["pi1"] = replace(world.nodes["pi1"], report=replace(world.nodes["pi2"].report))
    world.run()
    assert world.at("two") == ["pi2", "pi3"]


def test_a_turn_without_an_end_pauses_the_role() -> None:
    world = settled()
    world.publish(2, web="two")
    for _ in range(int(TURN_WITHIN / 60) + 3):
        world.now += 60
        for name in world.nodes:
            world.hear(name)
    assert "within an hour" in world.look().roles["web"]


def test_who_cannot_fetch_is_waited_for_some_minutes_and_then_passed_over() -> None:
    world = settled()
    world.publish(2, web="two")
    made = world.now
    world.cannot_fetch = {"pi1"}
    while not world.who_tried("two"):
        world.round()
    assert world.now - made >= FETCH_WITHIN
    assert world.who_tried("two") == ["pi2"]


def test_who_is_drained_gets_nothing() -> None:
    world = settled()
    world.state = rollout.drain(world.state, "pi1")
    world.publish(2, web="two")
    found = world.run()
    assert world.at("two") == ["pi2", "pi3"]
    assert found.targets["pi1"] == NodeTarget(why="drained")
    world.publish(3, web="three")
    world.round()
    assert [*world.look().state.turns] == ["pi2"]
    world.state = rollout.drain(world.state, "pi2")
    assert [*world.look().state.turns] == ["pi3"]
    world.run()
    assert world.at("three") == ["pi3"]
    world.state = rollout.undrain(world.state, "pi2")
    world.state = rollout.undrain(world.state, "pi1")
    world.run()
    assert len(world.at("three")) == 3


def test_who_is_drained_while_it_tries_takes_no_place() -> None:
    world = settled()
    world.publish(2, web="two")
    world.round()
    world.hear("pi1")
    world.state = rollout.drain(world.state, "pi1")
    for _ in range(40):
        world.now += 11
        for name in world.nodes:
            world.hear(name)
        world.end("pi2")
        world.end("pi3")
    assert world.nodes["pi1"].report.state is RoleState.TRYING
    assert world.at("two") == ["pi2", "pi3"]


def test_who_dies_in_its_turn_and_comes_back_when_it_is_called_off_keeps_nobody_waiting() -> None:
    world = settled()
    world.publish(2, web="two")
    world.round()
    world.hear("pi1")
    world.gone, world.told = {"pi1"}, {}
    world.run(30)
    world.state = rollout.resume(world.state, ["web"])
    world.gone = set()
    world.run()
    assert len(world.at("two")) == 3


def test_another_node_of_the_same_name_is_neither_drained_nor_rebooting() -> None:
    of_both = (Lock(group="web", id="pi1", since=NOW), Lock(group="web", id="pi1", since=NOW, foreign=True))
    state = rollout.drain(rollout.drain(replace(RolloutState(), locks=of_both), "pi1"), "pi2")
    assert rollout.forget(state, "pi1") == RolloutState(drained=("pi2",), locks=of_both[1:])


def test_who_reboots_has_a_place_of_those_that_go_at_once() -> None:
    world = settled()
    world.state = replace(world.state, locks=(Lock(group="web", id="pi3", since=world.now),))
    world.publish(2, web="two")
    found = world.run()
    assert world.at("two") == []
    assert "pi3 has the reboot lock" in found.roles["web"]
    assert "dom0 farm unlock pi3" in found.roles["web"]
    world.state = replace(world.state, locks=())
    world.run()
    assert len(world.at("two")) == 3


def test_who_died_with_the_reboot_lock_keeps_its_place_until_a_person_takes_it_away() -> None:
    world = settled()
    world.state = replace(world.state, locks=(Lock(group="web", id="pi3", since=world.now),))
    world.gone.add("pi3")
    world.now += 86400
    world.publish(2, web="two")
    assert "pi3 has the reboot lock" in world.run().roles["web"]
    assert world.at("two") == []
    world.state, _ = lock.unlock(world.state, "pi3")
    world.run()
    assert world.at("two") == ["pi1", "pi2"]


def test_who_is_no_node_has_a_place_too_whatever_it_calls_itself() -> None:
    world = settled(at_once=2)
    lock = Lock(group="web", id="pi1", since=world.now, foreign=True)
    world.state = replace(world.state, locks=(lock,))
    world.publish(2, web="two")
    assert "pi1 has the reboot lock" in world.run().roles["web"]
    assert world.at("two") == []
    world.state = replace(world.state, locks=())
    while not world.at("two"):
        world.round()
    world.state = replace(world.state, locks=(lock,))
    for _ in range(20):
        world.round()
        assert len(world.look().state.turns) <= 1
    assert len(world.at("two")) == 3


def test_after_a_power_cut_all_that_lost_their_memory_get_what_they_had_at_once_even_while_paused() -> None:
    world = settled(5)
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    world.run()
    assert "paused" in world.look().roles["web"]
    for name, node in world.nodes.items():
        world.nodes[name] = replace(node, report=NodeReport())
    world.round()
    assert len(world.at("one")) == 5
    assert world.who_tried("two") == ["pi1"]


def test_who_comes_to_what_its_role_had_first_comes_to_its_end_with_that() -> None:
    world = settled()
    world.publish(2, web="two")
    for name, node in world.nodes.items():
        world.nodes[name] = replace(node, report=NodeReport())
        world.hear(name)
    found = world.look()
    assert {node.report.content for node in world.nodes.values()} == {content("one").digest}
    assert found.state.turns == {}
    world.run()
    assert len(world.at("two")) == 3


def test_a_node_of_another_role_is_not_at_what_it_ran_before() -> None:
    world = World({"nas": "store", "pi1": "web"})
    world.publish(1, web="one", store="disk")
    world.run()
    world.nodes["pi1"] = replace(world.nodes["pi1"], role="store")
    world.run()
    assert world.at("disk") == ["nas", "pi1"]


def test_a_role_without_content_and_a_farm_without_a_revision_have_nothing_to_do() -> None:
    world = World({"nas": "store"})
    assert world.look().targets == {"nas": NodeTarget(why="no revision has its role")}
    world.publish(1, web="one")
    assert world.look().targets == {"nas": NodeTarget(why="no revision has its role")}


def test_a_clock_that_was_set_back_makes_a_node_soak_anew_and_nothing_hang() -> None:
    world = settled()
    world.publish(2, web="two")
    while not world.at("two"):
        world.round()
    world.look()
    world.now -= 3600
    world.run()
    assert len(world.at("two")) == 3


# at random

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["hear", "end", "hear", "end", "hear"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([1, 10, 31, 200])),
        st.tuples(
            st.sampled_from(["die", "kill", "return", "drain", "undrain", "forget", "lock", "unlock"]),
            st.integers(0, 5),
        ),
        st.tuples(st.sampled_from(["publish", "spoil", "mend", "resume", "pause", "back"]), st.integers(0, 1)),
    ),
    max_size=150,
)


ON_SLOTS = NodeReport(boots=SLOTS, os="0")


class Watched(World):
    """Looks after everything that happens whether it may have."""

    def __init__(self, count: int, at_once: int) -> None:
        roles = {"web": RoleSettings(at_once=at_once), "store": RoleSettings(at_once=at_once)}
        nodes = {f"pi{number}": "web" if number % 3 else "store" for number in range(count)}
        super().__init__(nodes, FarmSettings(name="attic", roles=roles))
        self.nodes = {name: replace(node, report=ON_SLOTS) for name, node in self.nodes.items()}
        self.at_once = at_once
        self.numbers = 0

    def do(self, what: str, number: int) -> None:
        if what == "wait":
            self.now += number
        self.do_to_node(what, f"pi{number % len(self.nodes)}")
        self.do_to_farm(what, ("web", "store")[number % 2])
        self.look()

    def do_to_node(self, what: str, name: str) -> None:
        match what:
            case "hear":
                self.hear(name)
            case "end":
                self.end(name)
            case "die":
                self.gone.add(name)
            case "kill":
                self.told.pop(name, None)
            case "return":
                self.gone.discard(name)
            case "drain":
                self.state = rollout.drain(self.state, name)
            case "undrain":
                self.state = rollout.undrain(self.state, name)
            case "forget":
                self.nodes[name] = replace(self.nodes[name], report=ON_SLOTS)
            case "lock" if not self.state.locks:
                self.state = replace(self.state, locks=(Lock(group=self.nodes[name].role, id=name, since=self.now),))

    def do_to_farm(self, what: str, role: str) -> None:
        match what:
            case "unlock":
                self.state = replace(self.state, locks=())
            case "publish":
                self.numbers += 1
                contents = {"web": f"web{self.numbers}", "store": f"store{self.numbers // 2}"}
                self.publish(self.numbers, os=f"{self.numbers // 2}", **contents)
            case "back" if self.numbers:
                self.back(max(1, self.numbers - 1))
            case "spoil" if self.current:
                self.bad.add(self.current.roles[role].digest)
                self.bad_os.add(self.current.os.version if self.current.os and role == "store" else "")
            case "mend":
                self.bad.clear()
                self.bad_os.clear()
            case "resume":
                self.state = rollout.resume(self.state, [role])
            case "pause":
                self.state = rollout.pause(self.state, [role], self.now)

    def look(self) -> RolloutStep:
        before = self.state
        found = super().look()
        for role in ("web", "store"):
            turns = {name: turn for name, turn in found.state.turns.items() if turn.role == role}
            given = {name for name in turns if name not in before.turns or turns[name].number > before.drawn}
            assert len(turns) <= self.at_once
            if given:
                assert role not in found.state.pauses
                busy = {lock.id for lock in found.state.locks if lock.group == role}
                assert len(turns.keys() | busy) <= self.at_once
            assert not turns.keys() & {*found.state.drained}
        told = {name for name, target in found.targets.items() if target.turn}
        assert told <= found.state.turns.keys()
        assert found.due is None or found.due > self.now
        for name, target in found.targets.items():
            report = self.nodes[name].report
            if target.run and not target.turn and self.current:  # what it is at, or what its role has settled on
                is_at = report.content == self.current.roles[self.nodes[name].role].digest
                assert is_at or report.state is RoleState.NONE
        return found


@given(EVENTS, st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_at_random_never_more_than_at_once_and_never_past_a_failure(
    events: Iterable[tuple[str, int]], count: int, at_once: int
) -> None:
    world = Watched(count, at_once)
    for what, number in events:
        world.do(what, number)
    # then all is well, and it comes to an end
    world.gone, world.bad, world.bad_os = set(), set(), set()
    world.state = replace(world.state, locks=(), drained=())
    world.do("publish", 0)
    for _ in range(3):
        for role in (0, 1):
            world.do("resume", role)
        for _ in range(20):
            world.round(40.0)
    assert world.current is not None
    for node in world.nodes.values():
        assert (node.report.content, node.report.state) == (world.current.roles[node.role].digest, RoleState.GOOD)
        assert node.report.has_os(world.current.os)
    assert world.state.turns == {}
    assert set(world.look().roles.values()) <= {""}


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 1 << 32))
@settings(max_examples=30, deadline=None)
def test_at_random_a_bad_revision_touches_exactly_one_node(count: int, at_once: int, seed: int) -> None:
    order = random.Random(seed)  # noqa: S311 -- no secret
    world = settled(count, at_once=at_once)
    world.bad.add(content("two").digest)
    world.publish(2, web="two")
    for _ in range(200):
        world.now += order.choice([0.0, 0.5, 1.0])  # so nobody is silent
        name = order.choice(list(world.nodes))
        order.choice([world.hear, world.hear, world.end])(name)
        if order.random() < 0.02:
            world.state = rollout.resume(world.state, ["web"])
    world.run(20)
    assert len(set(world.who_tried("two"))) == 1
    assert world.at("two") == []
