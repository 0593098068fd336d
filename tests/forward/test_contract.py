"""What an ambassador promises to connections, each promise in the kernel, over IPv4 and IPv6."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable

import pytest

from dom0.ambassador.park import announce, park
from dom0.forward import conntrack
from dom0.forward.dataplane import Flow
from dom0.forward.interfaces import let_through
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.forward.table import Down, Target, table
from dom0.testing.routes import at, tcp, udp
from dom0.testing.wires import Client, Node, Wires, eventually, make_router

NOBODY = (Target("10.77.0.250", 6379), Target("fd77::fa", 6379))


async def test_a_connection_goes_to_the_target(wires: Wires, plane: KernelPlane, family: int) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    assert dial(wires, family).ask() == "provider1:?"


async def test_after_a_rewire_new_connections_go_to_the_new_target_and_old_ones_stay(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    first, second = wires.providers
    await plane.set(table([tcp(1, *at(first))]))
    old = dial(wires, family)
    await plane.set(table([tcp(2, *at(second))]))
    assert dial(wires, family).ask() == "provider2:?"
    assert old.ask() == "provider1:?"
    assert [flow.client.port for flow in await plane.flows([1])] == [old.port]


async def test_no_connection_is_refused_or_mistaken_while_targets_change(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    """And each has the mark of the generation whose target it got."""
    first, second = wires.providers
    targets = [(at(first), at(second), at([first, second]))[number % 3] for number in range(45)]
    await plane.set(table([tcp(1, *targets[0])]))
    with Load(wires.consumer, wires.ambassador.address(family)) as load:
        for generation, wanted in enumerate(targets, start=1):
            before = load.answered
            await plane.set(table([tcp(generation, *wanted)]))
            eventually(lambda: load.answered > before or load.errors)  # noqa: B023 -- called at once
    assert load.errors == []
    assert load.answerers == {"provider1:?", "provider2:?"}
    listed = wires.ambassador.run(*conntrack.list_command(None))
    alive = re.sub(" (TIME_WAIT|CLOSE) src=", " ESTABLISHED src=", listed)  # those that have ended are listed too
    flows = [entry.flow for entry in conntrack.entries(alive)]
    assert flows
    assert [flow for flow in flows if flow.target not in targets[flow.generation - 1]] == []


async def test_no_connection_is_refused_while_listeners_come_and_go(wires: Wires, plane: KernelPlane) -> None:
    stays = tcp(1, *at(wires.providers[0]))
    await plane.set(table([stays]))
    with Load(wires.consumer, wires.ambassador.v4) as load:
        for number in range(2, 22):
            before = load.answered
            await plane.set(table([stays, tcp(number, *at(wires.providers[1]), listen=7000 + number)]))
            eventually(lambda: load.answered > before or load.errors)  # noqa: B023 -- called at once
    assert load.errors == []


async def test_several_targets_share_the_connections(wires: Wires, plane: KernelPlane, family: int) -> None:
    await plane.set(table([tcp(1, *at(wires.providers))]))
    assert {dial(wires, family).ask() for _ in range(60)} == {"provider1:?", "provider2:?"}


async def test_a_half_closed_connection_still_carries_the_answer(wires: Wires, plane: KernelPlane, family: int) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = dial(wires, family)
    client.say("last words")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.hear() == "provider1:last words"
    assert client.hear() == ""


@pytest.mark.parametrize("loose", [0, 1])
async def test_a_cut_tells_both_ends_although_they_are_silent(
    wires: Wires, plane: KernelPlane, family: int, loose: int
) -> None:
    first, second = wires.providers
    wires.ambassador.sysctl("net.netfilter.nf_conntrack_tcp_loose", loose)
    await plane.set(table([tcp(1, *at(first))]))
    clients = [dial(wires, family) for _ in range(100)]
    eventually(lambda: len(first.peers) == 100)
    await plane.set(table([tcp(2, *at(second))]))
    spared = dial(wires, family)
    assert await plane.cut(await plane.flows([1])) == 100
    assert all(client.is_reset() for client in clients)
    eventually(lambda: not first.peers)
    assert len(first.reset) == 100
    assert spared.ask() == "provider2:?"


@pytest.mark.parametrize("rewired", [True, False], ids=["rewired", "same target"])
async def test_a_cut_tells_ends_that_are_sending(wires: Wires, plane: KernelPlane, family: int, rewired: bool) -> None:
    """Also where the rules would send the next segment to the same target again."""
    first, second = wires.providers
    await plane.set(table([tcp(1, *at(first))]))
    clients = [dial(wires, family) for _ in range(8)]
    talking = [threading.Thread(target=talk_until_told, args=(client,)) for client in clients]
    for thread in talking:
        thread.start()
    if rewired:
        await plane.set(table([tcp(2, *at(second))]))
    assert await plane.cut(await plane.flows([1])) == 8
    for thread in talking:
        thread.join()
    eventually(lambda: not first.peers)
    assert "ending" not in wires.ambassador.run("nft", "list", "tables")


async def test_a_cut_tells_one_end_although_the_other_is_gone(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = dial(wires, 4)
    wires.providers[0].run("ip", "link", "set", "eth0", "down")
    assert await plane.cut(await plane.flows([1])) == 1
    assert client.is_reset()


async def test_cutting_what_has_ended_cuts_nothing(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    dial(wires, 4)
    flows = await plane.flows([1])
    assert [await plane.cut(flows), await plane.cut(flows)] == [1, 0]


async def test_a_target_that_comes_back_is_another_generation(wires: Wires, plane: KernelPlane, family: int) -> None:
    first, second = wires.providers
    clients = []
    for generation, provider in enumerate([first, second, first], start=1):
        await plane.set(table([tcp(generation, *at(provider))]))
        clients.append(dial(wires, family))
    assert await plane.cut(await plane.flows([1])) == 1
    assert clients[0].is_reset()
    assert [client.ask() for client in clients[1:]] == ["provider2:?", "provider1:?"]


async def test_a_cut_of_one_listener_spares_another_with_the_same_target(wires: Wires, plane: KernelPlane) -> None:
    target = at(wires.providers[0])
    await plane.set(table([tcp(1, *target), tcp(2, *target, listen=7000)]))
    one, other = dial(wires, 4), dial(wires, 4, 7000)
    assert await plane.cut(await plane.flows([1])) == 1
    assert one.is_reset()
    assert other.ask() == "provider1:?"


async def test_ports_are_translated_and_ranges_keep_theirs_apart(wires: Wires, plane: KernelPlane, family: int) -> None:
    provider = wires.providers[0]
    await plane.set(table(tcp(1 + offset, *at(provider, 6379 + offset), listen=7000 + offset) for offset in (0, 1)))
    assert [dial(wires, family, port).ask() for port in (7000, 7001)] == ["provider1:?"] * 2
    flows = sorted(await plane.flows(), key=lambda flow: flow.generation)
    assert [(flow.listener.port, flow.target.port) for flow in flows] == [(7000, 6379), (7001, 6380)]


async def test_the_target_sees_the_ambassador_and_the_clients_port(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = dial(wires, family)
    client.ask()
    assert wires.providers[0].peers == [(wires.ambassador.address(family), client.port)]


async def test_a_provider_reaches_itself_through_the_ambassador(wires: Wires, plane: KernelPlane, family: int) -> None:
    provider = wires.providers[0]
    await plane.set(table([tcp(1, *at(provider))]))
    assert provider.connect(wires.ambassador.address(family), 6379).ask() == "provider1:?"


async def test_a_target_may_be_behind_its_own_ambassador_and_both_can_cut(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    remote = wires.node("remote")
    make_router(remote)
    near, far = plane, KernelPlane(own(remote.namespace))
    await far.set(table([tcp(9, *at(wires.providers[0]))]))
    await near.set(table([tcp(1, *at(remote))]))
    client = dial(wires, family)
    assert client.ask() == "provider1:?"
    other = dial(wires, family)
    assert await near.cut([flow for flow in await near.flows() if flow.client.port == client.port]) == 1
    assert await far.cut([flow for flow in await far.flows() if flow.client.port == other.port]) == 1
    assert client.is_reset()
    assert other.is_reset()
    eventually(lambda: not wires.providers[0].peers)


async def test_a_connection_goes_on_after_the_kernel_lost_its_list(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = dial(wires, family)
    wires.ambassador.run("conntrack", "-F")
    assert client.ask() == "provider1:?"
    assert [flow.generation for flow in await plane.flows()] == [1]


async def test_a_provider_that_ends_tells_its_clients_itself(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = dial(wires, 4)
    eventually(lambda: wires.providers[0].peers)
    wires.providers[0].shut()
    assert client.hear() == ""
    eventually(lambda: not wires.providers[0].peers)


async def test_udp_moves_with_the_next_datagram_once_forgotten(wires: Wires, plane: KernelPlane, family: int) -> None:
    first, second = wires.providers
    await plane.set(table([udp(1, *at(first))]))
    client = wires.consumer.send_to(wires.ambassador.address(family), 6379)
    assert client.ask() == "provider1:?"
    await plane.set(table([udp(2, *at(second))]))
    assert client.ask() == "provider1:?"  # kept
    old = await plane.flows([1])
    assert await plane.forget(old) == 1
    assert client.ask() == "provider2:?"
    first.send_datagram(old[0].near.address, old[0].near.port)
    first.send_datagram(old[0].client.address, old[0].client.port)
    assert client.ask("again") == "provider2:again"


async def test_a_held_datagram_is_lost_and_a_later_one_arrives(wires: Wires, plane: KernelPlane, family: int) -> None:
    targets = at(wires.providers[0])
    await plane.set(table([udp(1, *targets, down=Down.HOLD)]))
    client = wires.consumer.send_to(wires.ambassador.address(family), 6379)
    client.say("lost")
    await plane.set(table([udp(1, *targets)]))
    assert client.ask("found") == "provider1:found"


async def test_datagrams_longer_than_a_packet_arrive_whole(wires: Wires, plane: KernelPlane, family: int) -> None:
    await plane.set(table([udp(1, *at(wires.providers[0]))]))
    client = wires.consumer.send_to(wires.ambassador.address(family), 6379)
    assert client.ask("x" * 5000) == f"provider1:{'x' * 5000}"


async def test_errors_of_the_target_reach_the_client(wires: Wires, plane: KernelPlane, family: int) -> None:
    nobody_listens = at(wires.providers[0], 9)
    await plane.set(table([tcp(1, *nobody_listens), udp(2, *nobody_listens)]))
    with pytest.raises(ConnectionRefusedError):
        dial(wires, family)
    with pytest.raises(ConnectionRefusedError):
        wires.consumer.send_to(wires.ambassador.address(family), 6379).ask()


async def test_an_unanswered_connect_is_sent_on_to_the_new_target(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    await plane.set(table([tcp(1, *NOBODY)]))
    with Dialling(wires.consumer, wires.ambassador.address(family)) as dialling:
        flows = await until_flows(plane, [1])
        assert [flow.state for flow in flows] == ["SYN_SENT"]
        await plane.set(table([tcp(2, *at(wires.providers[1]))]))
        assert await plane.forget(flows) == 1
    assert dialling.answer() == "provider2:?"


async def test_refused_listeners_refuse_at_once_and_leave_established_connections_alone(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    wires.ambassador.sysctl("net.ipv4.conf.all.send_redirects", 0)
    let_through(own(wires.ambassador.namespace))
    targets = at(wires.providers[0])
    await plane.set(table([tcp(1, *targets), udp(2, *targets)]))
    client = dial(wires, family)
    await plane.set(table([tcp(1, *targets, down=Down.REFUSE), udp(2, *targets, down=Down.REFUSE)]))
    with pytest.raises(ConnectionRefusedError):
        dial(wires, family)
    with pytest.raises(ConnectionRefusedError):
        wires.consumer.send_to(wires.ambassador.address(family), 6379).ask()
    assert client.ask() == "provider1:?"


async def test_held_connects_leave_no_trace_and_succeed_when_they_are_let_go(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    targets = at(wires.providers[0])
    await plane.set(table([tcp(1, *targets, down=Down.HOLD)]))
    with Dialling(wires.consumer, wires.ambassador.address(family)) as dialling:
        eventually(lambda: wires.consumer.run("ss", "-Htn", "state", "syn-sent"))
        assert wires.ambassador.run("conntrack", "-L", "-p", "tcp") == ""
        assert dialling.is_waiting
        await plane.set(table([tcp(1, *targets)]))
    assert dialling.answer() == "provider1:?"


async def test_consumers_are_refused_where_no_target_has_an_address_of_their_family(
    wires: Wires, plane: KernelPlane
) -> None:
    await plane.set(table([tcp(1, Target(wires.providers[0].v4, 6379))]))
    assert dial(wires, 4).ask() == "provider1:?"
    with pytest.raises(ConnectionRefusedError):
        dial(wires, 6)


async def test_a_listener_that_is_taken_away_refuses_and_its_connections_go_on(
    wires: Wires, plane: KernelPlane, family: int
) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = dial(wires, family)
    await plane.set(table([]))
    with pytest.raises(ConnectionRefusedError):
        dial(wires, family)
    assert client.ask() == "provider1:?"


async def test_two_clients_may_have_the_same_port(wires: Wires, plane: KernelPlane, family: int) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    for node in (wires.consumer, wires.node("consumer2")):
        made = node.socket(family)
        made.bind((node.address(family), 40000))
        made.connect((wires.ambassador.address(family), 6379))
        assert Client(made).ask() == "provider1:?"
    assert len(set(wires.providers[0].peers)) == 2


async def test_ports_that_are_no_listeners_are_the_ambassadors_own(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    metrics = wires.ambassador.socket()
    metrics.bind((wires.ambassador.v4, 9180))
    metrics.listen()
    wires.consumer.connect(wires.ambassador.v4, 9180).say("GET")
    asking, _ = metrics.accept()
    with asking:
        assert asking.recv(3) == b"GET"


async def test_the_ambassador_routes_nothing_but_its_listeners(wires: Wires, plane: KernelPlane) -> None:
    provider = wires.providers[0]
    provider.run("ip", "address", "add", "10.88.0.1/32", "dev", "lo")
    wires.ambassador.run("ip", "route", "add", "10.88.0.1", "via", provider.v4)
    wires.consumer.run("ip", "route", "add", "10.88.0.1", "via", wires.ambassador.v4)
    assert wires.consumer.connect("10.88.0.1", 6379).ask() == "provider1:?"  # the way is there
    await plane.set(table([tcp(1, *at(provider))]))
    wires.ambassador.run("conntrack", "-F")
    lost = wires.consumer.socket()
    lost.settimeout(0.3)
    with pytest.raises(TimeoutError):
        lost.connect(("10.88.0.1", 6379))


@pytest.mark.parametrize("mac", ["same", "another"])
async def test_connections_outlive_the_ambassadors_namespace(
    wires: Wires, plane: KernelPlane, family: int, mac: str
) -> None:
    wanted = table([tcp(1, *at(wires.providers[0])), udp(2, *at(wires.providers[0]))])
    await plane.set(wanted)
    client = dial(wires, family)
    client.ask()
    node, place = wires.ambassador, own(wires.ambassador.namespace)
    address = node.run("cat", "/sys/class/net/eth0/address").strip() if mac == "same" else ""
    dumped = await plane.dump()
    park(place)
    wires.recreate(node)
    wires.providers[0].push("while you were away")
    client.say("are you there?")

    make_router(node)
    reborn = KernelPlane(own(node.namespace))
    await reborn.set(wanted)
    node.run("conntrack", "-R", "-", stdin=dumped)
    wires.plug(node, mac=address)
    announce(own(node.namespace))

    heard = ""
    while len(heard) < len("provider1:while you were awayprovider1:are you there?"):
        heard += client.hear()
    assert "provider1:while you were away" in heard
    assert "provider1:are you there?" in heard
    assert [(flow.generation, flow.client.port) for flow in await reborn.flows()] == [(1, client.port)]


def dial(wires: Wires, family: int, port: int = 6379) -> Client:
    return wires.consumer.connect(wires.ambassador.address(family), port)


def talk_until_told(client: Client) -> None:
    try:
        while client.ask():
            pass
    except ConnectionError:
        return


async def until_flows(plane: KernelPlane, generations: list[int]) -> list[Flow]:
    while not (flows := await plane.flows(generations)):
        pass
    return flows


class Load:
    """Connects, asks and closes in several threads as fast as it can."""

    def __init__(self, node: Node, address: str) -> None:
        self.answered = 0
        self.answerers: set[str] = set()
        self.errors: list[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(node, address)) for _ in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, node: Node, address: str) -> None:
        while not self._ended.is_set():
            try:
                client = node.connect(address, 6379)
                self.answerers.add(client.ask())
                client.close()
            except OSError as error:
                self.errors.append(repr(error))
            self.answered += 1


class Dialling:
    """A connect that somebody else must bring to an end."""

    def __init__(self, node: Node, address: str) -> None:
        self._dial: Callable[[], Client] = lambda: node.connect(address, 6379)
        self._result: list[Client | OSError] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Dialling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    @property
    def is_waiting(self) -> bool:
        return not self._result

    def answer(self) -> str:
        (result,) = self._result
        if isinstance(result, OSError):
            raise result
        return result.ask()

    def _run(self) -> None:
        try:
            self._result.append(self._dial())
        except OSError as error:
            self._result.append(error)
