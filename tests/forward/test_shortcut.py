"""The same rules in a consumer's namespace: its packets skip the ambassador, and nothing else is different."""

from __future__ import annotations

import pytest

from dom0.forward.kernel import KernelPlane
from dom0.forward.place import consumer
from dom0.forward.table import Down, Target, table
from dom0.testing.routes import at, tcp, udp
from dom0.testing.wires import Wires, eventually


async def test_new_connections_go_to_the_target_itself(wires: Wires, shortcut: KernelPlane, family: int) -> None:
    await shortcut.set(table([tcp(1, *at(wires.providers[0], 6380)), udp(2, *at(wires.providers[0]))]))
    client = wires.consumer.connect(wires.ambassador.address(family), 6379)
    assert client.ask() == "provider1:?"
    assert wires.providers[0].peers == [(wires.consumer.address(family), client.port)]
    assert wires.consumer.send_to(wires.ambassador.address(family), 6379).ask() == "provider1:?"


async def test_a_connection_from_before_stays_with_the_ambassador(
    wires: Wires, plane: KernelPlane, shortcut: KernelPlane, family: int
) -> None:
    first, second = wires.providers
    await plane.set(table([tcp(1, *at(first))]))
    client = wires.consumer.connect(wires.ambassador.address(family), 6379)
    assert client.ask() == "provider1:?"
    await shortcut.set(table([tcp(2, *at(second))]))
    assert client.ask() == "provider1:?"
    assert await shortcut.flows() == []


async def test_a_rewire_keeps_old_connections_and_a_cut_tells_both_ends(
    wires: Wires, shortcut: KernelPlane, family: int
) -> None:
    first, second = wires.providers
    await shortcut.set(table([tcp(1, *at(first))]))
    address = wires.ambassador.address(family)
    clients = [wires.consumer.connect(address, 6379) for _ in range(20)]
    eventually(lambda: len(first.peers) == 20)
    await shortcut.set(table([tcp(2, *at(second))]))
    new = wires.consumer.connect(address, 6379)
    assert {client.ask() for client in clients} == {"provider1:?"}
    wires.ambassador.run("ip", "link", "set", "eth0", "down")  # it is not needed
    assert await shortcut.cut(await shortcut.flows([1])) == 20
    assert all(client.is_reset() for client in clients)
    eventually(lambda: not first.peers)
    assert new.ask() == "provider2:?"
    assert tables(wires) == {"dom0_shortcut_redis"}


async def test_udp_moves_once_it_is_forgotten(wires: Wires, shortcut: KernelPlane, family: int) -> None:
    first, second = wires.providers
    await shortcut.set(table([udp(1, *at(first))]))
    client = wires.consumer.send_to(wires.ambassador.address(family), 6379)
    assert client.ask() == "provider1:?"
    await shortcut.set(table([udp(2, *at(second))]))
    assert await shortcut.forget(await shortcut.flows([1])) == 1
    assert client.ask() == "provider2:?"


async def test_switched_off_it_stays_until_its_connections_have_ended(
    wires: Wires, plane: KernelPlane, shortcut: KernelPlane, family: int
) -> None:
    first, second = wires.providers
    await plane.set(table([tcp(1, *at(second))]))
    await shortcut.set(table([tcp(1, *at(first))]))
    address = wires.ambassador.address(family)
    client = wires.consumer.connect(address, 6379)
    assert not await shortcut.retire()
    assert client.ask() == "provider1:?"
    assert wires.consumer.connect(address, 6379).ask() == "provider2:?"  # by the ambassador
    client.close()
    eventually(lambda: not first.peers)
    while not await shortcut.retire():
        pass
    assert tables(wires) == set()


@pytest.mark.parametrize("down", list(Down))
async def test_listeners_that_refuse_or_hold_are_left_to_the_ambassador(
    wires: Wires, plane: KernelPlane, shortcut: KernelPlane, down: Down
) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[1]))]))
    route = tcp(1, *at(wires.providers[0]))
    await shortcut.set(table([route, tcp(2, *at(wires.providers[0]), listen=7000)]))
    await shortcut.set(table([tcp(1, *route.targets, down=down), tcp(2, *at(wires.providers[0]), listen=7000)]))
    assert await shortcut.read() == table([tcp(2, *at(wires.providers[0]), listen=7000)])
    assert wires.consumer.connect(wires.ambassador.v4, 6379).ask() == "provider2:?"


async def test_two_ambassadors_do_not_mix_their_connections_up(wires: Wires, shortcut: KernelPlane) -> None:
    first, second = wires.providers
    other_ambassador = wires.node("ambassador2")
    other = KernelPlane(consumer(wires.consumer.namespace, [other_ambassador.v4], "postgres"))
    await shortcut.set(table([tcp(1, *at(first))]))
    await other.set(table([tcp(1, *at(second))]))
    one = wires.consumer.connect(wires.ambassador.v4, 6379)
    another = wires.consumer.connect(other_ambassador.v4, 6379)
    assert [one.ask(), another.ask()] == ["provider1:?", "provider2:?"]
    assert await shortcut.cut(await shortcut.flows([1])) == 1
    assert one.is_reset()
    await shortcut.cleanup()
    assert another.ask() == "provider2:?"
    assert wires.consumer.connect(other_ambassador.v4, 6379).ask() == "provider2:?"


async def test_a_target_on_another_network_sees_the_consumers_address_there(
    wires: Wires, shortcut: KernelPlane
) -> None:
    provider = wires.providers[0]
    wires.consumer.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", provider.pid)
    for node, address in ((wires.consumer, "10.88.0.1/24"), (provider, "10.88.0.2/24")):
        node.run("ip", "address", "add", address, "dev", "eth1")
        node.run("ip", "link", "set", "eth1", "up")
    await shortcut.set(table([tcp(1, Target("10.88.0.2", 6379))]))
    client = wires.consumer.connect(wires.ambassador.v4, 6379)
    assert client.ask() == "provider1:?"
    assert provider.peers == [("10.88.0.1", client.port)]
    assert await shortcut.cut(await shortcut.flows([1])) == 1
    assert client.is_reset()
    eventually(lambda: not provider.peers)


async def test_other_traffic_of_the_consumer_is_not_touched(wires: Wires, shortcut: KernelPlane, family: int) -> None:
    first, second = wires.providers
    await shortcut.set(table([tcp(1, *at(first)), udp(2, *at(first))]))
    assert wires.consumer.connect(second.address(family), 6379).ask() == "provider2:?"
    assert wires.consumer.send_to(second.address(family), 6379).ask() == "provider2:?"


def test_a_place_is_made_of_names_and_addresses_only() -> None:
    for addresses, name in [
        (["10.0.0.1"], "x; flush ruleset"),
        (["10.0.0.1"], ""),
        ([], "redis"),
        (["fe80::1%eth0 }; flush ruleset"], "redis"),
    ]:
        with pytest.raises(ValueError, match=r"name|address"):
            consumer("/proc/1/ns/net", addresses, name)


def tables(wires: Wires) -> set[str]:
    return {line.split()[2] for line in wires.consumer.run("nft", "list", "tables").splitlines()}
