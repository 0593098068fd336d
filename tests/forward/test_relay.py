"""The relay: what it promises where the kernel may not forward, with real socats in network namespaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dom0.errors import Dom0Error
from dom0.forward.relay import MOST_PROCESSES, Relay, RelayPlane, command, parse, relays
from dom0.forward.table import Down, Listener, Protocol, Route, Target, table
from dom0.testing.wires import Client, Wires, eventually

TCP, UDP = Listener(Protocol.TCP, 6379), Listener(Protocol.UDP, 6379)
OTHER = Listener(Protocol.TCP, 6380)
Another = Callable[[], "Relaying"]
Connect = Callable[..., Client]
KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


class Relaying:
    """A plane in the ambassador's namespace."""

    def __init__(self, wires: Wires) -> None:
        self._node = wires.ambassador
        self._plane = RelayPlane()

    def set(self, *routes: Route) -> None:
        self.run("set", table(routes))

    def run(self, name: str, *arguments: Any) -> Any:
        return self._node.call(lambda: asyncio.run(getattr(self._plane, name)(*arguments)))


@pytest.fixture
def another(wires: Wires) -> Iterator[Another]:
    """Makes planes, as control planes that are started one after the other."""
    made: list[Relaying] = []

    def make() -> Relaying:
        made.append(Relaying(wires))
        return made[-1]

    yield make
    for relaying in made:
        relaying.run("cleanup")


@pytest.fixture
def relaying(another: Another) -> Relaying:
    return another()


@pytest.fixture
def connect(wires: Wires) -> Iterator[Connect]:
    """Makes clients: `connect()`, `connect(6)`, `connect(udp=True)`."""
    made: list[Client] = []

    def make(family: int = 4, *, udp: bool = False) -> Client:
        address = wires.ambassador.address(family)
        made.append(wires.consumer.send_to(address, 6379) if udp else wires.consumer.connect(address, 6379))
        return made[-1]

    yield make
    for client in made:
        client.close()


def to(wires: Wires, number: int, generation: int, listener: Listener = TCP, *, family: int = 4) -> Route:
    return Route(listener, generation, (Target(wires.providers[number - 1].address(family), 6379),))


@pytest.mark.parametrize("listener", [TCP, UDP, Listener(Protocol.TCP, 65535)])
@pytest.mark.parametrize("address", ["10.0.0.1", "fd77::1", "::1"])
def test_a_command_line_says_all_that_it_was_made_from(listener: Listener, address: str) -> None:
    for relay in relays(Route(listener, 2**32 - 1, (Target("10.0.0.9", 1), Target(address, 65535, 7)))):
        assert parse(command(relay)) == relay


@pytest.mark.parametrize(
    "argv", ["socat - -", "socat -d0 -lpdom0-relay -t1", "cat x -lpdom0-relay 6379/tcp 1 0 a:1", ""]
)
def test_other_programs_are_not_taken_for_ours(argv: str) -> None:
    assert parse(argv.split(" ", 2)) is None


@pytest.mark.parametrize("consumers", [4, 6])
@pytest.mark.parametrize("providers", [4, 6])
def test_any_family_reaches_a_target_of_any_family(
    wires: Wires, relaying: Relaying, consumers: int, providers: int, connect: Connect
) -> None:
    relaying.set(to(wires, 1, 1, family=providers), to(wires, 2, 2, UDP, family=providers))
    assert connect(consumers).ask() == "provider1:?"
    assert connect(consumers, udp=True).ask() == "provider2:?"


def test_new_connections_go_to_the_new_target_and_old_ones_stay(
    wires: Wires, relaying: Relaying, connect: Connect
) -> None:
    relaying.set(to(wires, 1, 1))
    old = connect()
    assert old.ask() == "provider1:?"
    relaying.set(to(wires, 2, 2))
    assert connect().ask() == "provider2:?"
    assert old.ask() == "provider1:?"


def test_no_connect_is_refused_while_targets_change_again_and_again(
    wires: Wires, relaying: Relaying, connect: Connect
) -> None:
    relaying.set(to(wires, 1, 1))
    for generation in range(2, 12):
        waiting = [connect() for _ in range(5)]
        relaying.set(to(wires, generation % 2 + 1, generation))
        assert {client.ask() for client in waiting} <= {"provider1:?", "provider2:?"}


def test_several_targets_share(wires: Wires, relaying: Relaying, connect: Connect) -> None:
    both = tuple(target for number in (1, 2) for target in to(wires, number, 1).targets)
    relaying.set(Route(TCP, 1, both))
    assert {connect().ask() for _ in range(50)} == {"provider1:?", "provider2:?"}


def test_the_same_table_again_changes_nothing(wires: Wires, relaying: Relaying) -> None:
    routes = (to(wires, 1, 1), to(wires, 2, 2, UDP))
    relaying.set(*routes)
    before = wires.ambassador.run("ss", "-Hltunp")
    relaying.set(*routes)
    assert wires.ambassador.run("ss", "-Hltunp") == before
    assert "socat" in before


def test_what_is_in_force_is_read_from_the_processes_alone(
    wires: Wires, relaying: Relaying, connect: Connect, another: Another
) -> None:
    routes = (Route(TCP, 7, (*to(wires, 2, 1).targets, *to(wires, 1, 1).targets)), to(wires, 2, 9, UDP))
    relaying.set(*routes)
    held = connect()  # its process is none that listens
    assert another().run("read") == table(routes)
    held.close()


def test_another_control_plane_rewires_what_the_first_one_left(
    wires: Wires, relaying: Relaying, connect: Connect, another: Another
) -> None:
    relaying.set(to(wires, 1, 1), to(wires, 1, 2, UDP))
    old = connect()
    assert old.ask() == "provider1:?"
    after = another()
    after.set(to(wires, 2, 3), to(wires, 2, 4, UDP))
    eventually(lambda: connect().ask() == "provider2:?", "the new target")
    assert old.ask() == "provider1:?"


def test_flows_say_who_and_where_to_and_under_which_generation(
    wires: Wires, relaying: Relaying, connect: Connect
) -> None:
    relaying.set(to(wires, 1, 1), to(wires, 2, 2, UDP))
    tcp = connect()
    udp = connect(udp=True)
    assert (tcp.ask(), udp.ask()) == ("provider1:?", "provider2:?")
    found = {flow.protocol: flow for flow in relaying.run("flows")}
    assert found.keys() == {"tcp", "udp"}
    assert found[Protocol.TCP].client == Target(wires.consumer.v4, tcp.port)
    assert found[Protocol.TCP].listener == Target(wires.ambassador.v4, 6379)
    assert found[Protocol.TCP].state == "ESTABLISHED"
    assert found[Protocol.UDP].client.port == udp.port
    assert found[Protocol.UDP].target == Target(wires.providers[1].v4, 6379)
    assert [flow.generation for flow in relaying.run("flows", {2})] == [2]


def test_a_cut_reaches_both_silent_ends_and_nobody_else(wires: Wires, relaying: Relaying, connect: Connect) -> None:
    relaying.set(to(wires, 1, 1))
    old = connect()
    assert old.ask() == "provider1:?"
    relaying.set(to(wires, 2, 2))
    new = connect()
    assert new.ask() == "provider2:?"
    assert relaying.run("cut", relaying.run("flows", {1})) == 1
    assert old.hear() == ""
    eventually(lambda: not wires.providers[0].peers, "the end of the connection at the provider")
    assert new.ask() == "provider2:?"


def test_udp_moves_when_its_flows_are_forgotten_and_tcp_does_not(
    wires: Wires, relaying: Relaying, connect: Connect
) -> None:
    relaying.set(to(wires, 1, 1), to(wires, 1, 2, UDP))
    tcp, udp = connect(), connect(udp=True)
    assert (tcp.ask(), udp.ask()) == ("provider1:?", "provider1:?")
    relaying.set(to(wires, 2, 3), to(wires, 2, 4, UDP))
    assert udp.ask() == "provider1:?"
    assert relaying.run("forget", relaying.run("flows", {1, 2})) == 1
    eventually(lambda: not relaying.run("flows", {2}), "the end of the UDP flow")
    assert (tcp.ask(), udp.ask()) == ("provider1:?", "provider2:?")


def test_a_listener_that_refuses_and_one_that_holds(wires: Wires, relaying: Relaying, connect: Connect) -> None:
    held = Route(TCP, 1, to(wires, 1, 1).targets, Down.HOLD)
    refused = Route(OTHER, 2, to(wires, 1, 1).targets, Down.REFUSE)
    relaying.set(held, refused)
    assert relaying.run("read") == table((held, refused))
    with pytest.raises(ConnectionRefusedError):
        wires.consumer.connect(wires.ambassador.v4, OTHER.port)
    waiting = connect()
    waiting.say("?")
    relaying.set(to(wires, 2, 3))
    assert waiting.hear() == "provider2:?"


@pytest.mark.parametrize("protocol", Protocol)
def test_a_port_that_is_taken_leaves_the_former_table_in_force(
    protocol: Protocol, wires: Wires, relaying: Relaying, connect: Connect
) -> None:
    relaying.set(to(wires, 1, 1))
    taken = wires.ambassador.socket(6, KINDS[protocol])
    taken.bind(("::", OTHER.port))
    if protocol is Protocol.TCP:
        taken.listen()
    with taken, pytest.raises(Dom0Error, match=f"{OTHER.port}/{protocol}: cannot be listened on"):
        relaying.set(to(wires, 2, 2), to(wires, 2, 3, Listener(protocol, OTHER.port)))
    assert connect().ask() == "provider1:?"
    assert relaying.run("read") == table([to(wires, 1, 1)])


def test_a_range_too_long_for_processes_is_refused(relaying: Relaying) -> None:
    routes = [
        Route(Listener(Protocol.TCP, 1000 + number), number, (Target("10.0.0.1", 1),))
        for number in range(1, MOST_PROCESSES + 2)
    ]
    with pytest.raises(Dom0Error, match="more than 512"):
        relaying.set(*routes)
    assert relaying.run("read") is None


def test_what_is_in_force_is_read_back_with_its_weights(wires: Wires, relaying: Relaying, another: Another) -> None:
    """Else the control plane would take it for a change by somebody else, again and again."""
    heavy = tuple(Target(provider.v4, 6379, weight) for provider, weight in zip(wires.providers, (3, 1), strict=True))
    relaying.set(Route(TCP, 1, heavy), Route(OTHER, 2, heavy, Down.REFUSE))
    assert relaying.run("read") == table([Route(TCP, 1, heavy), Route(OTHER, 2, heavy, Down.REFUSE)])
    light = tuple(Target(it.address, it.port) for it in heavy)
    assert another().run("read") == table([Route(TCP, 1, light)])


def test_cleaning_up_ends_listeners_and_connections(
    wires: Wires, relaying: Relaying, connect: Connect, another: Another
) -> None:
    relaying.set(to(wires, 1, 1))
    client = connect()
    assert client.ask() == "provider1:?"
    another().run("cleanup")
    relaying.run("cleanup")
    assert client.hear() == ""
    with pytest.raises(ConnectionRefusedError):
        connect()


def test_relays_are_numbered_in_the_order_of_their_targets() -> None:
    targets = (Target("10.0.0.2", 1), Target("10.0.0.1", 1, 5))
    assert relays(Route(TCP, 3, targets)) == [
        Relay(TCP, 3, 0, Target("10.0.0.2", 1)),
        Relay(TCP, 3, 1, Target("10.0.0.1", 1)),
    ]
