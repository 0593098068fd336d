"""What a rewire changes, as values: tables, generations, drains of old connections, receipts, the way back."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dom0.ambassador import rewire
from dom0.ambassador.declaration import Cut, DrainFor, Keep, Policy
from dom0.ambassador.desired import Wanted
from dom0.ambassador.rewire import Policies, TableChange
from dom0.ambassador.sources import Fixed, Source
from dom0.ambassador.state import Moment, Stored
from dom0.forward.dataplane import Flow
from dom0.forward.drain import Drain, Due, due
from dom0.forward.table import Down, Listener, Protocol, Target, Udp

REDIS, DNS = Listener(Protocol.TCP, 6379), Listener(Protocol.UDP, 53)
A, B, C = (Target(f"10.0.0.{number}", 6379) for number in (1, 2, 3))
KEEP = Policies(Keep(), "move")


def wants(*targets: Target, listener: Listener = REDIS, down: Down | None = None) -> dict[Listener, Wanted]:
    return {listener: Wanted(targets, down)}


def at(ticks: float) -> Moment:
    return Moment(1_800_000_000.0 + ticks, ticks)


def adapted(stored: Stored, *targets: Target, way: Policies = KEEP, ticks: float = 0.0) -> Stored:
    change = rewire.adapt(stored, wants(*targets), {REDIS: way}, cause="dns", at=at(ticks))
    assert change is not None
    return change.stored


def rewired(stored: Stored, *targets: Target, way: Policies = KEEP, ticks: float = 0.0) -> TableChange:
    sources: tuple[Source, ...] = tuple(Fixed(it.address, it.port) for it in targets)
    return rewire.replace(stored, {REDIS: sources}, wants(*targets), way, at=at(ticks))


def undone(stored: Stored, *targets: Target, way: Policies = KEEP, ticks: float = 0.0) -> Stored:
    undoable = rewire.last_rewire(stored, [REDIS])
    assert undoable is not None
    return rewire.undo(stored, undoable, wants(*targets), way, at=at(ticks)).stored


def flow(generation: int, target: Target = A, state: str = "ESTABLISHED", protocol: Protocol = Protocol.TCP) -> Flow:
    port = REDIS.port if protocol is Protocol.TCP else DNS.port
    return Flow(
        protocol=protocol,
        generation=generation,
        listener=Target("10.0.0.8", port),
        target=target,
        state=state if protocol is Protocol.TCP else "",
        client=Target("10.0.0.9", 1),
        near=Target("10.0.0.8", 2),
    )


def dues(stored: Stored, flows: list[Flow], ticks: float) -> list[Due]:
    return [due(it, flows, ticks) for it in stored.drains]


def generation(stored: Stored, listener: Listener = REDIS) -> int:
    return stored.table.by_listener[listener].generation


# tables


def test_the_first_table_has_no_receipt_because_nothing_was_before() -> None:
    stored = adapted(Stored(), A)
    assert (generation(stored), stored.receipts, stored.revision) == (1, (), 1)


def test_the_same_targets_in_another_order_change_nothing() -> None:
    stored = adapted(Stored(), A, B)
    assert rewire.adapt(stored, wants(B, A), {REDIS: KEEP}, cause="dns", at=at(0)) is None


def test_holding_changes_the_table_and_not_the_generation() -> None:
    stored = adapted(Stored(), A)
    change = rewire.adapt(stored, wants(A, down=Down.HOLD), {REDIS: KEEP}, cause="rewire", at=at(0))
    assert change is not None
    assert (generation(change.stored), change.receipts) == (1, ())
    assert change.stored.table.routes[0].down is Down.HOLD


def test_a_listener_that_is_wanted_no_more_goes_away_and_its_connections_are_remembered() -> None:
    stored = adapted(Stored(), A)
    change = rewire.adapt(stored, {}, {}, cause="settings", at=at(0))
    assert change is not None
    assert (change.stored.table.routes, change.stored.old) == ((), {"6379/tcp": (1,)})


def test_other_containers_behind_the_same_address_are_another_generation() -> None:
    stored = adapted(Stored(), A)
    change = rewire.adapt(
        stored, wants(A), {REDIS: Policies(Cut(), "move")}, cause="container", at=at(0), others=[REDIS]
    )
    assert change is not None
    assert generation(change.stored) == 2
    (due,) = dues(change.stored, [flow(1), flow(2)], 0)
    assert due.cut == (flow(1),)


# old connections


def test_keep_lets_old_connections_go_on() -> None:
    stored = rewired(adapted(Stored(), A), B).stored
    assert dues(stored, [flow(1)], 1000) == [Due((), (), (), (flow(1),))]


def test_cut_ends_old_connections_and_no_new_ones() -> None:
    stored = rewired(adapted(Stored(), A), B, way=Policies(Cut(), "move")).stored
    (due,) = dues(stored, [flow(1), flow(2, B)], 0)
    assert (due.cut, due.rest) == ((flow(1),), ())


def test_a_drain_cuts_what_is_left_when_its_time_is_over() -> None:
    stored = rewired(adapted(Stored(), A), B, way=Policies(DrainFor(30.0), "move"), ticks=100).stored
    assert dues(stored, [flow(1)], 129.9)[0].cut == ()
    assert dues(stored, [flow(1)], 130)[0].cut == (flow(1),)
    assert stored.receipts[-1].draining == at(130).now


def test_an_unanswered_connect_is_sent_on_whatever_the_policy() -> None:
    for policy in (Keep(), DrainFor(30.0), Cut()):
        stored = rewired(adapted(Stored(), A), B, way=Policies(policy, "move")).stored
        (due,) = dues(stored, [flow(1, state="SYN_SENT")], 0)
        assert (len(due.rescue), due.cut) == (1, ())


def test_what_has_ended_is_left_to_the_kernel() -> None:
    stored = rewired(adapted(Stored(), A), B, way=Policies(Cut(), "move")).stored
    assert dues(stored, [flow(1, state="TIME_WAIT"), flow(1, state="CLOSE")], 0) == [Due((), (), (), ())]


def test_udp_moves_or_stays_by_its_own_word() -> None:
    for udp, moved in (("move", 1), ("keep", 0)):
        stored = rewire.adapt(Stored(), wants(A, listener=DNS), {DNS: KEEP}, cause="settings", at=at(0))
        assert stored is not None
        way = Policies(Cut(), udp)  # type: ignore[arg-type]
        change = rewire.replace(stored.stored, {DNS: ()}, wants(B, listener=DNS), way, at=at(0))
        (due,) = dues(change.stored, [flow(1, protocol=Protocol.UDP)], 0)
        assert (len(due.move), len(due.cut)) == (moved, 0)


def test_a_target_that_nobody_asked_to_leave_keeps_its_connections() -> None:
    stored = adapted(adapted(Stored(), A, B), B, C, way=Policies(Cut(), "move"))
    (due,) = dues(stored, [flow(1, A), flow(1, B)], 0)
    assert due.cut == (flow(1, A),)


def test_connections_of_another_listener_are_not_concerned() -> None:
    stored = rewired(adapted(Stored(), A), B, way=Policies(Cut(), "move")).stored
    assert dues(stored, [flow(1, protocol=Protocol.UDP)], 0) == [Due((), (), (), ())]


def test_there_and_back_within_a_drain_generations_decide_and_not_the_address() -> None:
    drain = Policies(DrainFor(30.0), "move")
    stored = rewired(rewired(adapted(Stored(), A), B, way=drain, ticks=0).stored, A, ticks=10).stored
    first, third = flow(1, A), flow(3, A)
    assert generation(stored) == 3
    assert [due.cut for due in dues(stored, [first, third], 30)] == [(first,), ()]


# the way back


def test_undo_goes_back_and_lets_what_was_drained_live() -> None:
    stored = rewired(adapted(Stored(), A), B, way=Policies(DrainFor(30.0), "move")).stored
    back = undone(stored, A, way=Policies(Cut(), "move"), ticks=5)
    assert (generation(back), back.table.routes[0].targets, back.wishes) == (3, (A,), {})
    assert [due.cut for due in dues(back, [flow(1, A), flow(2, B), flow(3, A)], 1000)] == [(flow(2, B),)]
    assert [(it.cause, it.undone, it.draining) for it in back.receipts] == [("rewire", True, 0.0), ("undo", False, 0.0)]


def test_undo_twice_goes_back_twice() -> None:
    stored = rewired(rewired(adapted(Stored(), A), B).stored, C).stored
    once = undone(stored, B)
    assert once.wishes == {"6379/tcp": (Fixed(B.address, B.port),)}
    twice = undone(once, A)
    assert twice.wishes == {}
    assert rewire.last_rewire(twice, [REDIS]) is None
    assert [it.undone for it in twice.receipts] == [True, True, False, False]


# any sequence

TARGETS = st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=3, unique=True).map(tuple)
POLICIES = st.sampled_from([Keep(), Cut(), DrainFor(5.0)])
UDPS = st.sampled_from(["move", "keep"])
LISTENERS = st.lists(st.sampled_from([REDIS, DNS]), min_size=1, max_size=2, unique=True)


class Rewires(RuleBasedStateMachine):
    """Requests in any order; time passes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = Stored()
        self.ticks = 0.0
        self.sources: dict[Listener, tuple[Target, ...]] = {REDIS: (A,), DNS: (A,)}  # as declared
        self.given: dict[int, Listener] = {}
        self.rewires = 0

    def now(self) -> dict[Listener, tuple[Target, ...]]:
        wished = {it: self.stored.wishes.get(str(it)) for it in self.sources}
        return {it: _targets(wished[it]) if wished[it] else declared for it, declared in self.sources.items()}

    def wants(self) -> dict[Listener, Wanted]:
        return {it: Wanted(targets) for it, targets in self.now().items()}

    def take(self, change: TableChange | None) -> None:
        if change is None:
            return
        before = {route.listener: route.generation for route in self.stored.table.routes}
        for route in change.stored.table.routes:
            if route.generation != before.get(route.listener):
                assert route.generation > self.stored.generation, "a number was given again"
                assert route.generation not in self.given
                self.given[route.generation] = route.listener
        self.stored = change.stored

    @rule(to=TARGETS, listener=st.sampled_from([REDIS, DNS]), policy=POLICIES, udp=UDPS)
    def something_else_is_found(self, to: tuple[Target, ...], listener: Listener, policy: Policy, udp: Udp) -> None:
        self.sources[listener] = to
        ways = dict.fromkeys(self.sources, Policies(policy, udp))
        self.take(rewire.adapt(self.stored, self.wants(), ways, cause="dns", at=at(self.ticks)))

    @precondition(lambda self: self.stored.table.routes)
    @rule(to=TARGETS, listeners=LISTENERS, policy=POLICIES, udp=UDPS)
    def somebody_rewires(self, to: tuple[Target, ...], listeners: list[Listener], policy: Policy, udp: Udp) -> None:
        wishes: dict[Listener, tuple[Source, ...]] = {
            it: tuple(Fixed(target.address, target.port) for target in to) for it in listeners
        }
        wanted = self.wants() | {it: Wanted(to) for it in listeners}
        self.take(rewire.replace(self.stored, wishes, wanted, Policies(policy, udp), at=at(self.ticks)))
        self.rewires += 1

    @precondition(lambda self: self.stored.undo)
    @rule(policy=POLICIES)
    def somebody_goes_back(self, policy: Policy) -> None:
        undoable = self.stored.undo[-1]
        before = {str(it): targets for it, targets in self.now().items()}
        back = {key: _targets(sources) for key, sources in undoable.sources.items() if sources}
        wanted = {
            it: Wanted(back.get(str(it), self.sources[it] if str(it) in undoable.sources else before[str(it)]))
            for it in self.sources
        }
        self.take(rewire.undo(self.stored, undoable, wanted, Policies(policy, "move"), at=at(self.ticks)))
        self.rewires -= 1

    @rule(seconds=st.floats(0.1, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.ticks += seconds
        over = tuple(it for it in self.stored.drains if self.ticks < it.over_at)
        self.stored = msgspec.structs.replace(self.stored, drains=over)

    @invariant()
    def every_generation_is_remembered_while_it_may_have_connections(self) -> None:
        current = {route.generation for route in self.stored.table.routes}
        old = {generation for generations in self.stored.old.values() for generation in generations}
        assert current | old == set(self.given)
        assert not current & old

    @invariant()
    def no_connection_of_a_present_generation_is_ever_touched(self) -> None:
        for drain, route in itertools.product(self.stored.drains, self.stored.table.routes):
            for target in (A, B, C):
                assert not touches(drain, route.listener, route.generation, target)

    @invariant()
    def there_is_a_way_back_for_each_rewire(self) -> None:
        assert len(self.stored.undo) == self.rewires

    @invariant()
    def every_drain_has_its_receipt(self) -> None:
        numbers = [receipt.number for receipt in self.stored.receipts]
        assert numbers == sorted(set(numbers))
        assert {it.receipt for it in self.stored.drains} <= set(numbers)


def touches(drain: Drain, listener: Listener, generation: int, target: Target) -> bool:
    return drain.concerns(flow(generation, target, protocol=listener.protocol))


def _targets(sources: tuple[Source, ...] | None) -> tuple[Target, ...]:
    return tuple(Target(it.address, it.port) for it in sources or () if isinstance(it, Fixed))


TestRewires = Rewires.TestCase
TestRewires.settings = settings(max_examples=60, stateful_step_count=25)


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["ESTABLISHED", "SYN_SENT", "TIME_WAIT"]))), POLICIES)
def test_each_old_connection_is_treated_in_exactly_one_way(flows: list[tuple[int, str]], policy: Policy) -> None:
    stored = rewired(adapted(Stored(generation=3), A), B, way=Policies(policy, "move")).stored
    given_ = [flow(number, state=state) for number, state in flows]
    (due,) = dues(stored, given_, 1000)
    treated = [*due.rescue, *due.move, *due.cut, *due.rest]
    assert sorted(it.generation for it in treated) == sorted(
        number for number, state in flows if number < generation(stored) and state != "TIME_WAIT"
    )
