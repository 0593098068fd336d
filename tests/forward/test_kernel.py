"""The kernel told, and read back: by a plane that starts anew, after any history, beside the rules of others."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.errors import Dom0Error
from dom0.forward import nft
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.forward.table import MOST_ROUTES, Down, Listener, Protocol, Route, Table, Target, table
from dom0.testing.routes import at, tcp, udp
from dom0.testing.wires import Node, Wires

# As Docker lays them in a container with a name server of its own.
OTHERS = """
table ip docker-dns {
    chain output { type nat hook output priority -100; ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40001; }
    chain postrouting { type nat hook postrouting priority 100; ip saddr 127.0.0.11 udp sport 40001 snat to :53; }
}
table inet dom0 {
    chain own { type filter hook forward priority filter; }
}
"""


TARGETS = [Target("10.0.0.1", 80), Target("10.0.0.2", 81, 3), Target("fd00::1", 80), Target("fd00::2", 1, 1000)]
LISTENERS = st.builds(Listener, st.sampled_from(Protocol), st.sampled_from([53, 6379, 65535]))
GENERATIONS = st.integers(1, 2**32 - 1)
SOME_TARGETS = st.lists(st.sampled_from(TARGETS), min_size=1, unique=True).map(tuple)
ROUTES = st.builds(Route, LISTENERS, GENERATIONS, SOME_TARGETS, st.sampled_from([None, None, *Down])) | st.builds(
    Route, LISTENERS, GENERATIONS, st.just(()), st.sampled_from(Down)
)
TABLES = st.lists(ROUTES, max_size=4, unique_by=(lambda route: route.listener, lambda route: route.generation)).map(
    table
)


@pytest.fixture(scope="module")
def two_kernels(wires_possible: None) -> object:
    nodes = Node("any history", 1), Node("none", 2)
    yield nodes
    for node in nodes:
        node.stop()


@settings(max_examples=25)
@given(history=st.lists(st.tuples(TABLES, st.booleans()), max_size=4), last=TABLES)
async def test_any_history_ends_in_the_rules_of_its_last_table(
    two_kernels: tuple[Node, Node], history: list[tuple[Table, bool]], last: Table
) -> None:
    """Read back, they are the table; control planes that come and go in between change nothing about that."""
    old, fresh = two_kernels
    plane = KernelPlane(own(old.namespace))
    for one, is_another_process in [*history, (last, False)]:
        plane = KernelPlane(own(old.namespace)) if is_another_process else plane
        await plane.set(one)
    unwritten = KernelPlane(own(fresh.namespace))
    await unwritten.cleanup()
    await unwritten.set(last)
    assert await KernelPlane(own(old.namespace)).read() == last
    assert blocks(old) == blocks(fresh)


async def test_a_plane_that_starts_anew_adopts_what_is_there(wires: Wires, plane: KernelPlane) -> None:
    wanted = table([tcp(1, *at(wires.providers)), udp(2, *at(wires.providers[0]))])
    assert await plane.read() is None
    await plane.set(wanted)
    client = wires.consumer.connect(wires.ambassador.v4, 6379)
    answerer = client.ask()
    reborn = KernelPlane(own(wires.ambassador.namespace))
    assert await reborn.read() == wanted
    await reborn.set(wanted)
    assert client.ask() == answerer
    assert [flow.generation for flow in await reborn.flows()] == [1]


async def test_what_a_killed_plane_was_cutting_is_taken_away(wires: Wires, plane: KernelPlane) -> None:
    place, wanted = own(wires.ambassador.namespace), table([tcp(1, *at(wires.providers[0]))])
    await plane.set(wanted)
    wires.consumer.connect(wires.ambassador.v4, 6379)
    wires.ambassador.run("nft", "-f", "-", stdin=nft.end(place, await plane.flows()))
    assert "ending" in ruleset(wires.ambassador)
    await KernelPlane(place).set(wanted)
    assert "ending" not in ruleset(wires.ambassador)


async def test_rules_that_somebody_took_away_or_changed_are_written_again(wires: Wires, plane: KernelPlane) -> None:
    first, second = (table([tcp(number, *at(wires.providers[0]))]) for number in (1, 2))
    await plane.set(first)
    wires.ambassador.run("nft", "delete", "table", "ip", "dom0_ambassador")
    assert await plane.read() is None
    await plane.set(second)
    assert await plane.read() == second
    wires.ambassador.run("nft", "add", "rule", "ip", "dom0_ambassador", "tcp_6379", "accept")
    assert await plane.read() is None
    await plane.set(second)
    assert await plane.read() == second


async def test_the_rules_of_others_survive_everything(wires: Wires, plane: KernelPlane) -> None:
    wires.ambassador.run("nft", "-f", "-", stdin=OTHERS)
    before = ruleset(wires.ambassador)
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    await plane.set(table([tcp(2, *at(wires.providers[1]))]))
    assert wires.consumer.connect(wires.ambassador.v4, 6379).ask() == "provider2:?"
    await plane.cleanup()
    assert ruleset(wires.ambassador) == before
    await plane.cleanup()  # needs nothing to be there
    assert ruleset(wires.ambassador) == before


async def test_as_many_listeners_as_a_table_may_have_work(wires: Wires, plane: KernelPlane) -> None:
    targets = at(wires.providers[0])
    ports = range(10000, 10000 + MOST_ROUTES)
    wanted = table(tcp(port, *targets, listen=port) for port in ports)
    await plane.set(wanted)
    assert await plane.read() == wanted
    changed = table([*wanted.routes[:-1], tcp(1, *at(wires.providers[1]), listen=ports[-1])])
    await plane.set(changed)
    for port, answer in ((ports[-2], "provider1:?"), (ports[-1], "provider2:?")):
        assert wires.consumer.connect(wires.ambassador.v6, port).ask() == answer


async def test_a_refused_table_leaves_the_former_one_in_force(wires: Wires, plane: KernelPlane) -> None:
    wanted = table([tcp(1, *at(wires.providers[0]))])
    await plane.set(wanted)
    hostile = Target("fe80::1%x }; flush ruleset; #", 1)
    with pytest.raises(ValueError, match="short form"):
        await plane.set(Table((tcp(2, hostile),)))
    assert await plane.read() == wanted


async def test_a_flow_says_who_talks_to_whom_and_how_much(wires: Wires, plane: KernelPlane, family: int) -> None:
    wires.ambassador.sysctl("net.netfilter.nf_conntrack_acct", 1)
    await plane.set(table([tcp(7, *at(wires.providers[0], 6380), listen=7000)]))
    client = wires.consumer.connect(wires.ambassador.address(family), 7000)
    client.ask("x" * 1000)
    (flow,) = await plane.flows()
    assert flow.client == Target(wires.consumer.address(family), client.port)
    assert flow.listener == Target(wires.ambassador.address(family), 7000)
    assert flow.near == Target(wires.ambassador.address(family), client.port)
    assert flow.target == Target(wires.providers[0].address(family), 6380)
    assert (flow.generation, flow.state) == (7, "ESTABLISHED")
    assert flow.sent > 1000
    assert flow.received > 1000


async def test_flows_of_others_are_none_of_ours(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    assert wires.ambassador.connect(wires.providers[0].v4, 6379).ask() == "provider1:?"
    assert wires.ambassador.run("conntrack", "-L", "-p", "tcp") != ""
    assert await plane.flows() == []


async def test_a_flow_with_another_number_is_not_taken_for_it(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([udp(1, *at(wires.providers[0]))]))
    wires.consumer.send_to(wires.ambassador.v4, 6379).ask()
    (flow,) = await plane.flows()
    assert await plane.forget([msgspec.structs.replace(flow, number=flow.number ^ 1)]) == 0
    assert await plane.flows() != []
    assert await plane.forget([flow]) == 1


async def test_several_generations_are_asked_after_at_once(wires: Wires, plane: KernelPlane) -> None:
    for generation in (1, 2, 3):
        await plane.set(table([tcp(generation, *at(wires.providers[0]))]))
        wires.consumer.connect(wires.ambassador.v4, 6379)
    found = [{flow.generation for flow in await plane.flows(asked)} for asked in ([1, 3], [2], [], [9], None)]
    assert found == [{1, 3}, {2}, set(), set(), {1, 2, 3}]


async def test_a_namespace_that_is_gone_is_an_error_with_its_name(wires_possible: None) -> None:
    plane = KernelPlane(own("/proc/0/ns/net"))
    with pytest.raises(Dom0Error, match="/proc/0/ns/net"):
        await plane.set(Table())


def ruleset(node: Node) -> str:
    return node.run("nft", "-s", "list", "ruleset")


def blocks(node: Node) -> list[list[str]]:
    """The name of each table, and its maps and chains in no order: that is of when they were added."""
    tables = ruleset(node).split("\n}\n")
    return [sorted(re.findall(r"^table .*?{|\t(?:map|chain) .*?\n\t}", text, re.DOTALL)) for text in tables]
