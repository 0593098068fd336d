"""Which machine is what in a farm's Swarm, by what the machines say."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.engine.swarm import Member, SwarmState
from dom0.engine.swarm_bodies import ContainerSpec, Mode, ServiceBody, TaskSpec
from dom0.farms.float_content import FARM, FloatProject, image_label, image_name
from dom0.farms.float_steps import FloatObject
from dom0.farms.float_swarm import GONE, IDLE, Decision, FloatNode, FloatReport, FloatState, decide
from dom0.farms.revisions import Blob, FarmImage

BLOB = Blob(digest=f"sha256:{'b' * 64}", size=1)
NAME = image_name(BLOB.digest)
IMAGE = FarmImage(reference=NAME, manifest=BLOB, config=BLOB, layers=())
SERVICE = ServiceBody(name="blog_web", task_template=TaskSpec(container_spec=ContainerSpec(image=NAME)), mode=Mode())
BLOG = {"blog": FloatProject(name="blog", services=(SERVICE,))}
NOW = 1e6
OURS = {FARM: "attic"}
OUT = FloatReport(place=SwarmState(state="inactive"), images=(NAME,))


class World:
    """A farm whose nodes do what they are told, at once. Their IDs in the Swarm are `id NAME`, or as `ids` says."""

    def __init__(self, *names: str, declared: tuple[str, ...] = ()) -> None:
        self.declared = declared
        self.state = FloatState()
        self.projects = BLOG
        self.nodes = {name: FloatNode(key=f"key {name}", name=name, role="r", address=name, last=NOW) for name in names}
        self.members: dict[str, Member] = {}
        self.objects: tuple[FloatObject, ...] = ()
        self.token = "token"
        for name in names:
            self.say(name, OUT)

    def say(self, name: str, report: FloatReport | None) -> None:
        self.nodes[name] = replace(self.nodes[name], report=report)

    def decide(self) -> Decision:
        nodes = list(self.nodes.values())
        found = decide("attic", self.declared, self.projects, [IMAGE], nodes, self.state, NOW)
        again = decide("attic", self.declared, self.projects, [IMAGE], nodes, found.state, NOW)
        assert again == found  # a decision changes nothing by itself
        self.state = found.state
        return found

    def enter(self, name: str, *, leads: bool = False) -> None:
        self.members[f"id {name}"] = Member(
            id=f"id {name}",
            version=1,
            hostname=name,
            labels={},
            role="manager" if leads else "worker",
            availability="active",
            state="ready",
            manager=f"{name}:2377" if leads else "",
            is_leader=leads,
            is_reachable=leads,
        )
        self.say(
            name,
            FloatReport(
                place=SwarmState(state="active", node=f"id {name}", cluster="c", labels=OURS)
                if leads
                else SwarmState(state="active", node=f"id {name}"),
                images=(NAME,),
            ),
        )

    def lead(self, name: str, since: float = NOW) -> None:
        """Its report has what the Swarm is now."""
        place = SwarmState(state="active", node=f"id {name}", cluster="c", labels=OURS, is_manager=True)
        report = FloatReport(
            place=place,
            images=(NAME,),
            token=self.token,
            members=tuple(self.members.values()),
            objects=self.objects,
            since=since,
        )
        self.say(name, report)

    def change(self, name: str, **changed: object) -> None:
        self.members[f"id {name}"] = replace(self.members[f"id {name}"], **changed)


def formed(*names: str, declared: tuple[str, ...]) -> World:
    """All are in the Swarm, which the first one leads."""
    world = World(*names, declared=declared)
    assert world.decide().orders[f"key {names[0]}"].init
    for name in names:
        world.enter(name, leads=name == names[0])
    world.lead(names[0])
    world.decide()
    return world


def roles(found: Decision, writer: str) -> dict[str, str]:
    write = found.orders[f"key {writer}"].write
    assert write is not None
    return {id_.removeprefix("id "): told.role for id_, told in write.members.items()}


def test_without_a_floating_project_nobody_is_told_anything() -> None:
    world = World("a", "b", declared=("a",))
    world.projects = {}
    found = world.decide()
    assert found.state == FloatState()
    assert {(order.again, order.init, order.join, order.write, order.images) for order in found.orders.values()} == {
        (IDLE, False, None, None, ())
    }


def test_the_first_declared_one_that_has_the_images_and_answers_makes_the_swarm_and_nobody_else() -> None:
    world = World("a", "b", "c", declared=("a", "b", "c"))
    world.nodes["a"] = replace(world.nodes["a"], last=NOW - 1000)
    world.say("b", replace(OUT, images=()))
    found = world.decide()
    assert [key for key, order in found.orders.items() if order.init] == ["key c"]
    world.nodes["a"] = replace(world.nodes["a"], last=NOW)
    world.say("b", OUT)
    assert [key for key, order in world.decide().orders.items() if order.init] == ["key c"]


def test_one_whose_engine_is_in_a_swarm_of_others_is_left_alone() -> None:
    world = World("a", "b", declared=("a", "b"))
    world.say("a", replace(OUT, place=SwarmState(state="active", node="other", cluster="theirs", is_manager=True)))
    found = world.decide()
    assert found.orders["key b"].init
    assert "docker swarm leave" in found.why["a"]
    assert found.orders["key a"].join is None


def test_a_swarm_that_others_made_there_meanwhile_is_not_taken_for_the_farms() -> None:
    world = World("a", "b", declared=("a", "b"))
    assert world.decide().orders["key a"].init
    for labels in ({}, {FARM: "another"}):
        theirs = SwarmState(state="active", node="theirs", cluster="theirs", labels=labels, is_manager=True)
        world.say("a", replace(OUT, place=theirs))
        found = world.decide()
        assert found.state.cluster == ""
        assert "docker swarm leave" in found.why["a"]
        order = found.orders["key a"]
        assert (order.init, order.join, order.write, order.images) == (False, None, None, ())


def test_one_that_keeps_all_in_memory_or_is_reached_by_nobody_makes_no_swarm() -> None:
    world = World("a", "b", "c", "d", declared=("a", "b", "c"))
    world.say("a", replace(OUT, in_memory=True))
    world.nodes["b"] = replace(world.nodes["b"], address="127.0.0.1")
    found = world.decide()
    assert [key for key, order in found.orders.items() if order.init] == ["key c"]
    assert "in memory" in found.why["a"]
    assert "no other node reaches it" in found.why["b"]
    world.enter("c", leads=True)
    world.lead("c")
    world.decide()
    world.enter("a")
    world.say("a", replace(world.nodes["a"].report or OUT, in_memory=True))
    world.enter("d")
    world.lead("c")
    assert roles(world.decide(), "c") == {"a": "worker", "c": "manager", "d": "worker"}


def test_a_machine_that_says_it_is_what_another_one_is_known_as_is_not_believed() -> None:
    world = formed("b", "c", declared=("b",))
    world.nodes["a"] = replace(world.nodes["b"], key="key a", name="a")
    world.say("a", FloatReport(place=SwarmState(state="active", node="id c"), images=(NAME,)))
    assert world.decide().state.members == {"key b": "id b", "key c": "id c"}


def test_whose_engine_finds_no_majority_or_is_locked_is_not_told_to_leave_the_farms_own_swarm() -> None:
    world = formed("a", "b", "c", declared=("a", "b"))
    for state in ("pending", "locked", "error"):
        for name in ("a", "b"):
            world.say(name, FloatReport(place=SwarmState(state=state), images=(NAME,)))
        found = world.decide()
        assert (found.why["a"], found.why["b"]) == (f"its Engine is {state} in the Swarm",) * 2
        assert found.state.cluster == "c"


def test_a_manager_that_does_not_come_back_into_a_swarm_that_goes_on_is_told_how_it_joins_anew() -> None:
    world = formed("a", "b", "c", declared=("a", "b", "c"))
    leads = world.nodes["a"].report
    assert leads is not None
    for state, error in (("pending", "deadline exceeded"), ("error", "can't initialize raft node"), ("pending", "")):
        out = FloatReport(place=SwarmState(state=state, error=error), images=(NAME,))
        for ago, is_told in ((GONE - 1, True), (GONE, False)):
            world.say("a", replace(leads, last=NOW - ago))
            world.say("b", out)
            why = world.decide().why["b"]
            assert why.startswith(error or "its Engine is pending in the Swarm")
            assert why.endswith("; if that stays so for minutes, there: docker swarm leave --force") == is_told
    world.say("a", replace(leads, last=NOW))
    world.say("b", FloatReport(place=SwarmState(state="locked", error="needs to be unlocked"), images=(NAME,)))
    assert world.decide().why["b"] == "needs to be unlocked"
    world.say("b", OUT)
    assert world.decide().orders["key b"].join is not None


def test_tokens_are_made_anew_when_one_that_was_told_is_no_node_any_more() -> None:
    world = formed("a", "b", declared=("a",))
    world.nodes["c"] = replace(world.nodes["b"], key="key c", name="c", report=OUT)
    assert world.decide().orders["key c"].join is not None

    def is_rotated() -> bool:
        write = world.decide().orders["key a"].write
        assert write is not None
        return write.rotate

    assert not is_rotated()
    del world.nodes["c"]
    assert is_rotated()
    world.token = ""  # the server has started again: of that there is none on its disk
    world.lead("a")
    assert is_rotated()
    world.token = "another"
    world.lead("a")
    assert not is_rotated()
    assert world.state.told == ("key a",)  # who manages can always read it


def test_tokens_are_made_anew_after_who_managed_does_not_any_more() -> None:
    world = formed("a", "b", "c", declared=("a", "b", "c"))
    for name in "bc":
        world.change(name, role="manager", manager=f"{name}:2377", labels=OURS)
    world.lead("a")
    world.decide()
    del world.nodes["b"]
    write = world.decide().orders["key a"].write
    assert write is not None
    assert (write.forget, write.rotate) == (("id b",), False)
    world.change("b", role="worker", manager="")
    world.lead("a")
    write = world.decide().orders["key a"].write
    assert write is not None
    assert (write.forget, write.rotate) == (("id b",), True)


def test_tokens_are_made_anew_once_also_where_no_declared_one_is_in_the_swarm_yet() -> None:
    world = formed("a", "b", "c", declared=("a", "b", "c"))
    for name in "bc":
        world.change(name, role="manager", manager=f"{name}:2377", is_reachable=True)
    world.lead("a")
    world.decide()
    world.declared = ("new",)
    del world.nodes["b"], world.members["id b"]
    write = world.decide().orders["key a"].write
    assert write is not None
    assert write.rotate
    world.token = "another"
    world.lead("a")
    write = world.decide().orders["key a"].write
    assert write is not None
    assert not write.rotate
    assert world.state.managers == ("key a", "key c")


def test_no_declared_manager_makes_no_swarm() -> None:
    found = World("a", "b").decide()
    assert set(found.why.values()) == {"no node of float.managers has made the Swarm"}


def test_nodes_join_with_the_token_of_the_one_that_writes_when_they_have_the_images() -> None:
    world = World("a", "b", "c", declared=("a",))
    world.decide()
    world.enter("a", leads=True)
    world.lead("a")
    world.say("c", replace(OUT, images=()))
    found = world.decide()
    join = found.orders["key b"].join
    assert join is not None
    assert (join.managers, join.token) == (("a:2377",), "token")
    assert found.orders["key a"].join is found.orders["key c"].join is None
    assert found.why["c"] == "fetches 1 image"
    assert all(order.write is None for key, order in found.orders.items() if key != "key a")


def test_an_odd_number_of_declared_ones_are_managers() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    for declared, managers in (
        ("a", "a"),
        ("ab", "a"),
        ("abc", "abc"),
        ("abcd", "abc"),
        ("abcde", "abcde"),
        ("bad", "bad"),
    ):
        first = declared[0]
        world = formed(first, *(name for name in names if name != first), declared=tuple(declared))
        given = roles(world.decide(), first)
        assert {name for name, role in given.items() if role == "manager"} == set(managers)


def test_a_dead_manager_is_replaced_where_there_is_another_and_stays_one_where_there_is_none() -> None:
    for declared, after in (("abc", "abc"), ("abcd", "acd")):
        world = formed("a", "b", "c", "d", declared=tuple(declared))
        for name in "abc":
            world.change(name, role="manager")
        world.change("b", state="down")
        world.lead("a")
        assert {name for name, role in roles(world.decide(), "a").items() if role == "manager"} == set(after)


def test_one_that_came_again_is_in_and_its_old_entry_is_forgotten() -> None:
    world = formed("a", "b", declared=("a",))
    world.change("b", state="down", labels={FARM: "attic"})
    world.members["theirs"] = replace(world.members["id b"], id="theirs", labels={})
    world.members["new"] = replace(world.members["id b"], id="new", state="ready")
    world.lead("a")
    world.say("b", FloatReport(place=SwarmState(state="active", node="new"), images=(NAME,)))
    write = world.decide().orders["key a"].write
    assert write is not None
    assert write.forget == ("id b",)
    assert write.members.keys() == {"id a", "new"}


def test_a_node_that_the_farm_removed_is_forgotten_also_while_it_runs() -> None:
    world = formed("a", "b", declared=("a",))
    world.change("b", labels={FARM: "attic"})
    world.lead("a")
    del world.nodes["b"]
    write = world.decide().orders["key a"].write
    assert write is not None
    assert write.forget == ("id b",)


def test_the_one_that_leads_writes_and_another_when_it_is_no_node_any_more() -> None:
    world = formed("a", "b", "c", declared=("a", "b", "c"))
    world.change("a", is_leader=False)
    world.change("b", is_leader=True, role="manager")
    world.lead("b", since=NOW + 1)
    assert world.decide().writer == "b"  # what `a` said is older
    del world.nodes["b"]
    assert world.decide().writer == "a"
    world.say("a", replace(OUT, place=SwarmState(state="active", node="id a", cluster="c", is_manager=True)))
    assert world.decide().writer == ""  # it hears no majority


def test_a_manager_that_says_nothing_any_more_is_not_believed_against_one_that_hears_no_majority() -> None:
    world = formed("a", "b", "c", declared=("a", "b", "c"))
    leads = world.nodes["a"].report
    assert leads is not None
    alone = SwarmState(state="active", node="id b", is_manager=True, error="too few managers are online")
    world.say("b", FloatReport(place=alone, images=(NAME,), last=NOW))
    for ago, writer in ((0.0, "a"), (GONE - 1, "a"), (GONE, "")):
        world.say("a", replace(leads, last=NOW - ago))
        found = world.decide()
        assert found.writer == writer
    assert found.objects == ()
    assert found.why["b"].startswith("too few managers are online; what runs goes on, and nothing is changed until ")
    world.say("b", FloatReport(place=alone, images=(NAME,), last=NOW - 2 * GONE))
    assert world.decide().writer == "a"  # all of them are silent, as while no server runs


def test_when_all_managers_say_that_they_are_in_no_swarm_it_is_made_anew() -> None:
    world = formed("a", "b", declared=("a", "b"))
    world.say("b", OUT)
    assert world.decide().state.cluster == "c"
    world.say("a", OUT)
    world.decide()
    assert world.state.began == "key a"
    assert world.state.cluster == ""


def test_a_silent_manager_keeps_the_swarm_until_it_is_removed_from_the_farm() -> None:
    world = formed("a", "b", declared=("a", "b"))
    world.say("a", None)
    world.say("b", OUT)
    assert world.decide().why["b"] == "no manager answers"
    del world.nodes["a"]
    assert world.decide().orders["key b"].init


def test_images_that_are_in_use_are_kept_and_nodes_carry_labels_for_those_they_have() -> None:
    world = formed("a", declared=("a",))
    world.objects = (FloatObject(kind="service", name="blog_web", id="1", farm="attic", images=("old",)),)
    world.lead("a")
    order = world.decide().orders["key a"]
    assert order.keep == (NAME, "old")
    assert order.write is not None
    assert order.write.members["id a"].labels[image_label(NAME)] == "here"


def test_what_was_rolled_back_from_stays_known_until_another_one_runs() -> None:
    world = formed("a", declared=("a",))

    def after(digest: str, update: str = "") -> str:
        one = FloatObject(kind="service", name="blog_web", id="1", farm="attic", digest=digest, update=update)
        world.objects = (one,)
        world.lead("a")
        return world.decide().state.tried["blog_web"]

    one = FloatObject(kind="service", name="blog_web", id="1", farm="attic", digest="one", update="rollback_completed")
    world.objects = (one,)
    world.lead("a")
    world.say("a", replace(world.nodes["a"].report or OUT, written={"blog_web": "quick"}))
    assert world.decide().state.tried["blog_web"] == "quick"  # nobody has seen it run
    assert after("one", "rollback_completed") == "quick"
    assert [after("one"), after("two", "updating"), after("one", "rollback_completed")] == ["one", "two", "two"]
    assert after("three", "updating") == "three"
