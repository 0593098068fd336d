"""The agent's shortcuts in real namespaces: processes of the fake Engine's containers are nodes of the wires."""

from __future__ import annotations

import pytest

from dom0.agent.shortcut import Shortcuts
from dom0.ambassador.messages import State
from dom0.engine.bodies import ContainerBody
from dom0.engine.values import State as Life
from dom0.forward.drain import Drain
from dom0.forward.table import Down, Listener, Protocol, Route, Table, Target
from dom0.plan import labels
from dom0.testing.fake_container import FakeContainer, FakeEndpoint
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.fake_talk import make_state
from dom0.testing.wires import Node, Wires

PORT = Listener(Protocol.TCP, 6379)
PROJECT = "box"


class Bench:
    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self.docker = FakeDocker()
        self.docker.images.add("busybox:test")
        self.ambassador = self._container("echo", wires.ambassador, {labels.AMBASSADOR: "true"})
        self.consumer = self._container("web", wires.consumer, {})
        self.shortcuts = Shortcuts(FakeEngine(self.docker), "echo", lambda: PROJECT)

    def _container(self, name: str, node: Node, own: dict[str, str]) -> FakeContainer:
        marks = {labels.PROJECT: PROJECT, labels.ROLE: "service"} | own
        made = self.docker.create(name, ContainerBody(image="busybox:test", cmd=("true",), labels=marks))
        made.state, made.pid, made.started = Life.RUNNING, int(node.pid), 100.0
        made.endpoints = {"n": FakeEndpoint(network_id="n", ip_address=node.v4)}
        return made

    async def follow(self, state: State, *members: FakeContainer) -> None:
        found = [member.value() for member in members]
        await self.shortcuts.follow(self.ambassador.value(), state, found, present=["echo"])

    def rules(self) -> str:
        return self.wires.consumer.run("nft", "list", "ruleset")

    def ask(self) -> str:
        """Who answers a new connection of the consumer; the ambassador itself has no rules here."""
        client = self.wires.consumer.connect(self.wires.ambassador.v4, 6379)
        try:
            return client.ask()
        finally:
            client.close()


@pytest.fixture
async def bench(wires: Wires) -> Bench:
    return Bench(wires)


def leads(node: Node, generation: int, *, down: Down | None = None, drains: tuple[Drain, ...] = ()) -> State:
    route = Route(PORT, generation, (Target(node.v4, 6379),), down)
    return make_state(table=Table((route,)), shortcut=True, drains=drains)


def drain(until: int, cut_at: float | None) -> Drain:
    return Drain(receipt=until, listener=PORT, since=0, until=until, cut_at=cut_at, over_at=2.0**40)


async def test_packets_of_the_consumer_go_straight_to_the_target(bench: Bench) -> None:
    await bench.follow(leads(bench.wires.providers[0], 1), bench.consumer)
    assert bench.ask() == f"{bench.wires.providers[0].name}:?"
    (shown,) = bench.shortcuts.status
    assert (shown.consumer, shown.listeners, shown.reason) == ("web", ("6379/tcp",), "")


async def test_a_rewire_keeps_old_connections_and_counts_them(bench: Bench) -> None:
    one, two = bench.wires.providers
    await bench.follow(leads(one, 1), bench.consumer)
    old = bench.wires.consumer.connect(bench.wires.ambassador.v4, 6379)
    assert old.ask() == f"{one.name}:?"
    await bench.follow(leads(two, 2, drains=(drain(2, None),)), bench.consumer)
    assert (old.ask(), bench.ask()) == (f"{one.name}:?", f"{two.name}:?")
    assert (bench.shortcuts.counted(2).kept, bench.shortcuts.counted(2).cut) == (1, 0)


async def test_a_cut_reaches_the_consumer_and_is_counted(bench: Bench) -> None:
    one, two = bench.wires.providers
    await bench.follow(leads(one, 1), bench.consumer)
    old = bench.wires.consumer.connect(bench.wires.ambassador.v4, 6379)
    assert old.ask() == f"{one.name}:?"
    await bench.follow(leads(two, 2, drains=(drain(2, 0.0),)), bench.consumer)
    assert old.is_reset()
    assert bench.shortcuts.counted(2).cut == 1


async def test_while_a_target_is_down_the_ambassador_is_asked_and_old_connections_go_on(bench: Bench) -> None:
    one = bench.wires.providers[0]
    await bench.follow(leads(one, 1), bench.consumer)
    old = bench.wires.consumer.connect(bench.wires.ambassador.v4, 6379)
    assert old.ask() == f"{one.name}:?"
    await bench.follow(leads(one, 1, down=Down.REFUSE), bench.consumer)
    with pytest.raises(OSError, match="refused"):
        bench.ask()
    assert old.ask() == f"{one.name}:?"
    assert "the ambassador says what that means" in bench.shortcuts.status[0].reason


async def test_switched_off_it_leaves_nothing_once_the_last_connection_has_ended(bench: Bench) -> None:
    one = bench.wires.providers[0]
    await bench.follow(leads(one, 1), bench.consumer)
    old = bench.wires.consumer.connect(bench.wires.ambassador.v4, 6379)
    assert old.ask() == f"{one.name}:?"
    await bench.follow(make_state(), bench.consumer)
    assert old.ask() == f"{one.name}:?"
    assert "dom0_shortcut" in bench.rules()
    old.close()
    one.shut()
    await bench.follow(make_state(), bench.consumer)
    assert "dom0_shortcut" not in bench.rules()


async def test_a_consumer_that_left_the_network_has_no_rules_any_more(bench: Bench) -> None:
    await bench.follow(leads(bench.wires.providers[0], 1), bench.consumer)
    await bench.follow(leads(bench.wires.providers[0], 1))
    assert "dom0_shortcut" not in bench.rules()


async def test_another_agent_finds_what_this_one_left(bench: Bench) -> None:
    one, two = bench.wires.providers
    await bench.follow(leads(one, 1), bench.consumer)
    bench.shortcuts = Shortcuts(FakeEngine(bench.docker), "echo", lambda: PROJECT)
    await bench.follow(leads(two, 2), bench.consumer)
    assert bench.ask() == f"{two.name}:?"
    bench.shortcuts = Shortcuts(FakeEngine(bench.docker), "other", lambda: PROJECT)
    await bench.shortcuts.follow(bench.ambassador.value(), leads(one, 3), [bench.consumer.value()], present=["other"])
    assert bench.ask() == f"{one.name}:?"


async def test_what_an_earlier_agent_left_goes_where_nobody_wants_it(bench: Bench) -> None:
    await bench.follow(leads(bench.wires.providers[0], 1), bench.consumer)
    bench.shortcuts = Shortcuts(FakeEngine(bench.docker), "echo", lambda: PROJECT)
    await bench.follow(make_state(), bench.consumer)
    assert "dom0_shortcut" not in bench.rules()


async def test_an_agent_that_ends_takes_its_rules_out_of_the_way(bench: Bench) -> None:
    await bench.follow(leads(bench.wires.providers[0], 1), bench.consumer)
    await bench.shortcuts.withdraw()
    with pytest.raises(OSError, match="refused"):
        bench.ask()


async def test_rules_of_others_in_the_namespace_stay(bench: Bench) -> None:
    bench.wires.consumer.run(
        "nft", "-f", "-", stdin="table ip docker-dns { chain own { ip daddr 127.0.0.11 accept; }; }"
    )
    await bench.follow(leads(bench.wires.providers[0], 1), bench.consumer)
    await bench.follow(make_state(), bench.consumer)
    assert "docker-dns" in bench.rules()


async def test_a_container_of_somebody_else_is_not_entered(bench: Bench) -> None:
    bench.consumer.labels = {}
    await bench.follow(leads(bench.wires.providers[0], 1), bench.consumer)
    assert bench.rules() == ""
    assert bench.shortcuts.status[0].reason == "dom0 did not make it"


async def test_rules_that_somebody_took_away_are_set_again(bench: Bench) -> None:
    state = leads(bench.wires.providers[0], 1)
    await bench.follow(state, bench.consumer)
    bench.wires.consumer.run("nft", "flush", "ruleset")
    await bench.shortcuts.follow(
        bench.ambassador.value(), state, [bench.consumer.value()], present=["echo"], verify=True
    )
    assert bench.ask() == f"{bench.wires.providers[0].name}:?"
