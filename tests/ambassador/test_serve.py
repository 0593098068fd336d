"""A control plane at work in namespaces: rewires, what outlives it, what it finds by itself, what it refuses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dom0.ambassador.messages import Follow, Planned, Rewire, State
from dom0.errors import Dom0Error
from dom0.testing.control_plane import ControlPlane, run_once
from dom0.testing.name_server import NameServer
from dom0.testing.wires import Client, Wires, eventually

REDIS = "REDIS_PORT_6379_TCP"


def settings(**listen: object) -> dict[str, str]:
    return {"DOM0_AMBASSADOR": json.dumps({"listen": listen})}


@pytest.fixture
def amb(wires: Wires) -> Iterator[ControlPlane]:
    """6379 goes to the first provider."""
    with ControlPlane(wires.ambassador, {REDIS: f"tcp://{wires.providers[0].v4}:6379"}) as made:
        yield made


@contextmanager
def running(wires: Wires, environ: dict[str, str], **files: str) -> Iterator[ControlPlane]:
    with ControlPlane(wires.ambassador, environ, **files) as made:
        yield made


def dial(wires: Wires, port: int = 6379) -> Client:
    return wires.consumer.connect(wires.ambassador.v4, port)


def answerer(wires: Wires, port: int = 6379) -> str:
    return dial(wires, port).ask().partition(":")[0]


def answers(wires: Wires) -> bool:
    try:
        return bool(answerer(wires))
    except ConnectionRefusedError:
        return False


# rewires


def test_link_variables_are_enough(wires: Wires, amb: ControlPlane) -> None:
    assert answerer(wires) == "provider1"


def test_ipv6_and_udp_and_translated_ports_are_forwarded(wires: Wires) -> None:
    a, b = wires.providers
    environ = {"A_PORT_7000_TCP": f"tcp://[{a.v6}]:6379", "B_PORT_7000_UDP": f"udp://{b.v4}:6380"}
    with running(wires, environ):
        assert wires.consumer.connect(wires.ambassador.v6, 7000).ask() == "provider1:?"
        assert wires.consumer.send_to(wires.ambassador.v4, 7000).ask() == "provider2:?"


def test_a_rewire_keeps_old_connections_and_says_so(wires: Wires, amb: ControlPlane) -> None:
    old = dial(wires)
    receipt = amb.rewire(wires.providers[1].v4)
    assert (receipt.before, receipt.after) == ((f"{wires.providers[0].v4}:6379",), (f"{wires.providers[1].v4}:6379",))
    assert (receipt.kept, receipt.cut, receipt.generations) == (1, 0, (2,))
    assert (old.ask(), answerer(wires)) == ("provider1:?", "provider2")
    assert amb.generations() == [1, 2]


def test_a_rewire_that_cuts_tells_silent_clients(wires: Wires, amb: ControlPlane) -> None:
    silent = [dial(wires) for _ in range(5)]
    assert amb.rewire(wires.providers[1].v4, existing="cut").cut == 5
    assert all(client.is_reset() for client in silent)


def test_a_drain_counts_who_ended_and_who_was_cut(wires: Wires, amb: ControlPlane) -> None:
    stays, leaves = dial(wires), dial(wires)
    receipt = amb.rewire(wires.providers[1].v4, existing="drain=3s")
    assert (receipt.kept, receipt.draining > 0) == (2, True)
    leaves.close()
    assert stays.is_reset()
    last = eventually(lambda: [it for it in amb.history() if it.draining == 0], "the end of the drain")[-1]
    assert (last.kept, last.ended, last.cut) == (0, 1, 1)


def test_a_drain_of_several_listeners_is_counted_together(wires: Wires) -> None:
    a, b = wires.providers
    with running(wires, settings(**{"6379-6380": {"to": [f"{a.v4}:6379"]}})) as amb:
        clients = [dial(wires, 6379), dial(wires, 6380), dial(wires, 6380)]
        assert amb.rewire(b.v4, existing="drain=1s").kept == 3
        assert all(client.is_reset() for client in clients)
        (last,) = eventually(lambda: [it for it in amb.history() if it.draining == 0], "the end of the drain")
        assert (last.kept, last.ended, last.cut) == (0, 0, 3)


def test_rewires_at_the_same_time_take_turns(wires: Wires, amb: ControlPlane) -> None:
    to = [provider.v4 for provider in wires.providers] * 4
    with ThreadPoolExecutor(len(to)) as pool:
        receipts = sorted(pool.map(amb.rewire, to), key=lambda it: it.number)
    assert [it.number for it in receipts] == list(range(1, 9))
    assert [it.generations for it in receipts] == [(number,) for number in range(2, 10)]
    assert [it.before for it in receipts[1:]] == [it.after for it in receipts[:-1]]
    assert amb.targets()["6379/tcp"] == receipts[-1].after


def test_udp_moves_with_the_next_datagram_or_stays_if_told(wires: Wires) -> None:
    a, b = wires.providers
    with running(wires, {"A_PORT_6379_UDP": f"udp://{a.v4}:6379"}) as amb:
        flow = wires.consumer.send_to(wires.ambassador.v4, 6379)
        assert flow.ask() == "provider1:?"
        assert amb.rewire(b.v4, udp="keep").kept == 1
        assert flow.ask() == "provider1:?"
        assert amb.rewire(b.v4, udp="move").moved == 1
        assert flow.ask() == "provider2:?"


def test_a_connect_to_a_dead_target_is_rescued(wires: Wires, amb: ControlPlane) -> None:
    amb.rewire("10.77.0.250:6379")
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(answerer(wires)))
    waiting.start()
    eventually(lambda: amb.generations() == [2], "a connect under way")
    assert amb.rewire(wires.providers[1].v4).rescued == 1
    waiting.join()
    assert answers == ["provider2"]


def test_undo_goes_back_and_back_again(wires: Wires, amb: ControlPlane) -> None:
    amb.rewire(wires.providers[1].v4)
    last = amb.rewire("10.77.0.250").number
    with pytest.raises(Dom0Error, match=f"rewire {last - 1} is not the last one any more: that is {last}"):
        amb.undo(receipt=last - 1)
    assert amb.undo(receipt=last).after == (f"{wires.providers[1].v4}:6379",)
    assert answerer(wires) == "provider2"
    amb.undo()
    assert answerer(wires) == "provider1"
    assert not amb.state().listeners[0].rewired
    with pytest.raises(Dom0Error, match="no rewire to go back from"):
        amb.undo()


def test_undo_lets_connections_live_that_were_being_drained(wires: Wires, amb: ControlPlane) -> None:
    old = dial(wires)
    amb.rewire(wires.providers[1].v4, existing="drain=24h")
    new = dial(wires)
    receipt = amb.undo(existing="cut")
    assert (receipt.cut, new.is_reset(), old.ask()) == (1, True, "provider1:?")
    assert all(it.draining == 0 for it in amb.history())
    assert amb.state().undone == (1,), "shortcuts call it off as well"


def test_a_plan_changes_nothing_and_names_the_connections(wires: Wires, amb: ControlPlane) -> None:
    client = dial(wires)
    to = (wires.providers[1].v4,)
    planned = amb.ask(Rewire(to=to, existing="cut", plan=True), Planned)
    assert ([flow.client.port for flow in planned.flows], planned.receipt.cut) == ([client.port], 1)
    assert (client.ask(), answerer(wires), amb.history()) == ("provider1:?", "provider1", [])


def test_a_port_range_is_rewired_as_one(wires: Wires) -> None:
    a, b = wires.providers
    with running(wires, settings(**{"6379-6380": {"to": [f"{a.v4}:6379"]}})) as amb:
        assert len(amb.rewire(f"{b.v4}:6379", listener="6379-6380").generations) == 2
        assert (answerer(wires, 6379), answerer(wires, 6380)) == ("provider2", "provider2")
        assert amb.targets()["6380/tcp"] == (f"{b.v4}:6380",)


def test_holding_makes_clients_wait_until_the_new_target_accepts(wires: Wires, amb: ControlPlane) -> None:
    a, b = wires.providers
    amb.rewire(f"{a.v4}:7777")  # nobody there: a connection would be refused
    receipts = []
    rewiring = threading.Thread(target=lambda: receipts.append(amb.rewire(f"{b.v4}:7000", hold=True)))
    rewiring.start()
    eventually(lambda: amb.state().listeners[0].down == "hold", "the hold")
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(answerer(wires)))
    waiting.start()
    b.serve(7000)
    waiting.join()
    rewiring.join()
    assert (answers, receipts[0].after) == (["provider2"], (f"{b.v4}:7000",))


def test_when_the_new_target_does_not_come_the_old_one_is_in_force_again(wires: Wires, amb: ControlPlane) -> None:
    before = amb.state().table
    with pytest.raises(Dom0Error, match="accepted no connection within") as refused:
        amb.rewire(f"{wires.providers[1].v4}:7777", hold=True, hold_timeout="300ms")
    assert "nothing was changed" in refused.value.hint
    assert amb.state().table == before
    assert answerer(wires) == "provider1"


def test_a_drain_that_is_done_is_told_for_those_who_were_away(wires: Wires, amb: ControlPlane) -> None:
    amb.rewire(wires.providers[1].v4, existing="cut")
    over = eventually(lambda: json.loads(amb.state_file.read_text()).get("past"), "the end of the drain")
    (told,) = amb.state().drains
    assert (told.receipt, told.until, len(over)) == (1, 2, 1)
    amb.undo()
    assert [it.receipt for it in amb.state().drains] == [2]


# refusals

REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no target": ({"to": ()}, "to: is missing"),
    "too many targets": ({"to": tuple(f"h{number}" for number in range(65))}, "65 targets are more than 64"),
    "a target with a rule in it": ({"to": ("h; flush ruleset",)}, "neither an address nor a name"),
    "a name that does not exist": ({"to": ("no-such-name.invalid:1",)}, "is not found"),
    "the ambassador itself": ({"to": ("10.77.0.2:6379",)}, "a loop"),
    "loopback": ({"to": ("127.0.0.1:6379",)}, "a loop"),
    "a listener that is not there": ({"to": ("h:1",), "listener": "80"}, "80/tcp is not one of this ambassador's"),
    "a listener that is none": ({"to": ("h:1",), "listener": "x"}, "is not a listener"),
    "a policy that is none": ({"to": ("h:1",), "existing": "kill"}, "not one of keep, cut"),
    "a time that is none": ({"to": ("10.0.0.1:1",), "hold": True, "hold_timeout": "soon"}, "not a duration"),
    "a container that nobody follows": ({"to": ("container:redis:1",)}, "no address is known"),
    "a family that no consumer speaks": ({"to": ("[fd77::5]:6379",)}, "consumers come over IPv4"),
    "a zone": ({"to": ("[fe80::1%eth0]:1",)}, "link-local"),
}


@pytest.mark.parametrize(("how", "why"), REFUSED.values(), ids=REFUSED)
def test_a_rewire_that_makes_no_sense_changes_nothing(
    wires: Wires, amb: ControlPlane, how: dict[str, object], why: str
) -> None:
    before = amb.state()
    with pytest.raises(Dom0Error, match=why):
        amb.ask(Rewire(**how), State)  # type: ignore[arg-type]
    assert amb.state().table == before.table
    assert answerer(wires) == "provider1"


def test_an_ambassador_that_leads_to_itself_does_not_start(wires: Wires) -> None:
    code, _, errors = run_once(wires.ambassador, {REDIS: f"tcp://{wires.ambassador.v4}:6379"}, "run")
    assert (code, "6379/tcp: 10.77.0.2:6379 is this ambassador itself: a loop" in errors) == (3, True)


# what outlives it


def test_a_killed_control_plane_is_not_missed_and_the_next_one_goes_on(wires: Wires, amb: ControlPlane) -> None:
    first = dial(wires)
    amb.rewire(wires.providers[1].v4)
    second, before = dial(wires), amb.state()
    amb.kill()
    assert (first.ask(), second.ask(), answerer(wires)) == ("provider1:?", "provider2:?", "provider2")
    amb.start()
    after = amb.state()
    assert (after.table, after.revision, after.receipts) == (before.table, before.revision, before.receipts)
    assert (first.ask(), answerer(wires)) == ("provider1:?", "provider2")
    assert amb.undo().generations == (3,)


def test_it_ends_in_good_order_and_leaves_what_it_set(wires: Wires, amb: ControlPlane) -> None:
    client = dial(wires)
    assert amb.stop() == 0
    assert not amb.control.exists()
    assert (client.ask(), answerer(wires)) == ("provider1:?", "provider1")


def test_a_drain_goes_on_under_the_next_control_plane(wires: Wires, amb: ControlPlane) -> None:
    client = dial(wires)
    amb.rewire(wires.providers[1].v4, existing="drain=2s")
    amb.restart()
    assert client.is_reset()
    assert eventually(lambda: [it for it in amb.history() if it.draining == 0])[-1].cut == 1


def test_another_declaration_wins_over_a_rewire_with_the_policy_of_the_listener(
    wires: Wires, amb: ControlPlane
) -> None:
    a, b = wires.providers
    amb.rewire(b.v4)
    client = dial(wires)
    amb.restart(**settings(**{"6379": {"to": [f"{a.v4}:6380"], "existing": "cut"}}))
    assert client.is_reset()
    assert amb.targets() == {"6379/tcp": (f"{a.v4}:6380",)}
    eventually(lambda: [(it.cause, it.cut) for it in amb.history()][1:] == [("settings", 1)])
    assert amb.state().table.routes[0].generation == 3


def test_without_its_state_it_takes_over_what_the_kernel_forwards_by(wires: Wires, amb: ControlPlane) -> None:
    old = dial(wires)
    amb.rewire(wires.providers[1].v4)
    amb.rewire(wires.providers[0].v4)
    amb.kill()
    amb.state_file.unlink()
    amb.start()
    assert amb.state().table.routes[0].generation == 3
    receipt = amb.rewire(wires.providers[1].v4, existing="cut")
    assert (receipt.generations, receipt.cut, old.is_reset()) == ((4,), 1, True)


def test_a_state_that_is_older_than_the_rules_gives_no_number_again(wires: Wires, amb: ControlPlane) -> None:
    old = amb.state_file.read_text()
    amb.rewire(wires.providers[1].v4)
    client = dial(wires)
    amb.kill()
    amb.state_file.write_text(old)
    amb.start()
    assert (answerer(wires), client.ask()) == ("provider1", "provider2:?")
    assert amb.state().table.routes[0].generation == 3


def test_a_damaged_state_is_set_aside_and_told(wires: Wires, amb: ControlPlane) -> None:
    client = dial(wires)
    amb.kill()
    amb.state_file.write_text('{"generation": "many"}')
    amb.start()
    assert "ambassador-state" in amb.problems()
    assert amb.state_file.with_name("state.json.damaged").exists()
    assert (client.ask(), amb.state().table.routes[0].generation) == ("provider1:?", 1)


def test_rules_that_somebody_takes_away_come_back(wires: Wires, amb: ControlPlane) -> None:
    wires.ambassador.run("nft", "delete", "table", "ip", "dom0_ambassador")
    eventually(lambda: "table ip dom0_ambassador\n" in wires.ambassador.run("nft", "list", "tables"))
    assert answerer(wires) == "provider1"


# what it finds by itself


def test_a_line_in_hosts_is_followed_when_the_engine_rewrites_it(wires: Wires) -> None:
    a, b = wires.providers
    environ = {REDIS: "tcp://redis:6379"}
    with running(wires, environ, hosts=f"{a.v4} redis 5f3c\n", resolv_conf="nameserver 127.0.0.1\n") as amb:
        eventually(lambda: amb.targets()["6379/tcp"])
        assert answerer(wires) == "provider1"
        amb.write("/etc/hosts", f"127.0.0.1 localhost\n{b.v4} redis # moved\n")
        eventually(lambda: amb.targets()["6379/tcp"] == (f"{b.v4}:6379",), "the move")
        assert answerer(wires) == "provider2"
        assert [it.cause for it in amb.history()] == ["dns"]


@pytest.fixture
def name_server(wires: Wires) -> Iterator[NameServer]:
    bound = wires.consumer.socket(kind=socket.SOCK_DGRAM)
    bound.bind((wires.consumer.v4, 53))
    with NameServer(bound) as made:
        yield made


def test_a_name_that_moves_is_a_rewire_and_one_that_is_silent_is_none(wires: Wires, name_server: NameServer) -> None:
    a, b = wires.providers
    name_server.say("redis.", [a.v4, a.v6])
    environ = settings(**{"6379": {"to": ["redis:6379"], "existing": "cut"}})
    with running(wires, environ, resolv_conf=f"nameserver {name_server.address}\n") as amb:
        eventually(lambda: len(amb.targets()["6379/tcp"]) == 2, "both families")
        client = dial(wires)
        name_server.forget("redis.")
        eventually(lambda: "ambassador-name" in amb.problems())
        assert client.ask() == "provider1:?"
        name_server.say("redis.", [b.v4, b.v6])
        assert client.is_reset()
        assert answerer(wires) == "provider2"
        assert amb.problems() == set()


def test_a_rewire_to_a_name_follows_it_from_then_on(wires: Wires, name_server: NameServer) -> None:
    a, b = wires.providers
    name_server.say("redis.", [b.v4])
    resolv_conf = f"nameserver {name_server.address}\n"
    with running(wires, {REDIS: f"tcp://{a.v4}:6379"}, resolv_conf=resolv_conf) as amb:
        assert amb.rewire("redis").after == (f"{b.v4}:6379",)
        name_server.say("redis.", [a.v4])
        eventually(lambda: amb.targets()["6379/tcp"] == (f"{a.v4}:6379",), "the move")
        amb.restart()
        assert amb.state().listeners[0].sources == ("redis:6379",)


def test_a_name_that_is_not_found_is_a_problem_until_it_is(wires: Wires) -> None:
    environ = {REDIS: "tcp://redis:6379"}
    with running(wires, environ, hosts="127.0.0.1 localhost\n", resolv_conf="nameserver 127.0.0.1\n") as amb:
        eventually(lambda: "ambassador-name" in amb.problems())
        amb.write("/etc/hosts", f"{wires.providers[0].v4} redis\n")
        eventually(lambda: amb.problems() == set(), "the name")
        eventually(lambda: answers(wires), "its rule, which comes after the name")
        assert answerer(wires) == "provider1"


def test_a_name_that_leads_to_the_ambassador_itself_is_left_out(wires: Wires) -> None:
    hosts = f"{wires.ambassador.v4} redis\n"
    with running(wires, {REDIS: "tcp://redis:6379"}, hosts=hosts) as amb:
        eventually(lambda: "ambassador-loop" in amb.problems())
        assert amb.state().table.routes == ()


HEALTH = {"interval": "100ms", "timeout": "10s", "fall": 2, "rise": 1}  # nobody is silent here, but this machine may be


def test_a_target_that_accepts_nothing_gets_nothing_until_it_is_back(wires: Wires) -> None:
    a, b = wires.providers
    to = [f"{a.v4}:6379", f"{b.v4}:7000"]
    with running(wires, settings(**{"6379": {"to": to, "health": HEALTH}})) as amb:
        eventually(lambda: amb.targets()["6379/tcp"] == (f"{a.v4}:6379",), "the other one alone")
        assert amb.problems() == {"ambassador-target"}
        assert {answerer(wires) for _ in range(10)} == {"provider1"}
        b.serve(7000)
        eventually(lambda: len(amb.targets()["6379/tcp"]) == 2, "both")
        assert amb.problems() == set()
        assert {it.cause for it in amb.history()} == {"health"}


def refused(wires: Wires) -> bool:
    with pytest.raises(ConnectionRefusedError):
        dial(wires)
    return True


def waits(wires: Wires) -> bool:
    made = wires.consumer.socket()
    made.settimeout(0.3)
    with pytest.raises(TimeoutError):
        made.connect((wires.ambassador.v4, 6379))
    return True


DOWN: dict[str, Callable[[Wires], bool]] = {"last": refused, "refuse": refused, "hold": waits, "hold=100ms": refused}


@pytest.mark.parametrize("down", DOWN)
def test_while_no_target_is_up_new_connections_meet_what_the_listener_says(wires: Wires, down: str) -> None:
    to = [f"{wires.providers[0].v4}:7000"]
    with running(wires, settings(**{"6379": {"to": to, "health": HEALTH, "down": down}})) as amb:
        eventually(lambda: "ambassador-down" in amb.problems())
        shown = {"last": "", "hold": "hold"}.get(down, "refuse")
        eventually(lambda: amb.state().listeners[0].down == shown, shown)
        assert DOWN[down](wires)
        assert amb.targets() == {"6379/tcp": (f"{wires.providers[0].v4}:7000",)}, "the last target stays"
        wires.providers[0].serve(7000)
        eventually(lambda: not amb.problems() and not amb.state().listeners[0].down, "the target")
        assert answerer(wires) == "provider1"


def test_what_the_agent_finds_is_followed(wires: Wires) -> None:
    a, b = wires.providers
    with running(wires, settings(**{"6379": {"to": ["container:redis:6379"], "existing": "cut"}})) as amb:
        assert amb.problems() == {"ambassador-source", "ambassador-down"}
        amb.ask(Follow(found={"container:redis:6379": (a.v4,)}, identities={"container:redis": "one"}), State)
        eventually(lambda: amb.targets()["6379/tcp"])
        client = dial(wires)
        amb.ask(Follow(found={"container:redis": (b.v4,)}, identities={"container:redis": "two"}), State)
        assert client.is_reset()
        assert eventually(lambda: [it.cause for it in amb.history()]) == ["container"]
        assert answerer(wires) == "provider2"


def test_consumers_wait_for_a_provider_that_was_never_there(wires: Wires) -> None:
    with running(wires, settings(**{"6379": {"to": ["container:redis:6379"], "down": "hold"}})) as amb:
        answers: list[str] = []
        waiting = threading.Thread(target=lambda: answers.append(answerer(wires)))
        waiting.start()
        assert waits(wires)
        amb.ask(Follow(found={"container:redis": (wires.providers[0].v4,)}), State)
        waiting.join()
        assert answers == ["provider1"]
        assert amb.history() == [], "nothing was before"


def test_consumers_wait_while_a_provider_is_replaced_also_when_the_control_plane_is_killed_meanwhile(
    wires: Wires,
) -> None:
    a, b = wires.providers
    with running(wires, settings(**{"6379": {"to": ["service:redis:6379"]}})) as amb:
        amb.ask(Follow(found={"service:redis": (a.v4,)}), State)
        eventually(lambda: amb.targets()["6379/tcp"])
        old = dial(wires)
        said = amb.ask(Follow(found={"service:redis": ()}, awaited=("service:redis",)), State)
        assert said.listeners[0].down == "hold"
        answers: list[str] = []
        waiting = threading.Thread(target=lambda: answers.append(answerer(wires)))
        waiting.start()
        assert waits(wires)
        amb.restart()
        amb.ask(Follow(found={"service:redis": ()}), State)
        assert waits(wires)
        assert old.ask().startswith("provider1:")
        amb.ask(Follow(found={"service:redis": (b.v4,)}), State)
        waiting.join()
        assert answers == ["provider2"]


def test_another_container_with_the_same_address_is_another_generation(wires: Wires) -> None:
    a = wires.providers[0]
    with running(wires, settings(**{"6379": {"to": ["container:redis:6379"], "existing": "cut"}})) as amb:
        for identity in ("one", "one", "two"):
            amb.ask(Follow(found={"container:redis": (a.v4,)}, identities={"container:redis": identity}), State)
            eventually(lambda: amb.targets()["6379/tcp"])
            if identity == "one":
                client = dial(wires)
        assert client.is_reset()
        assert amb.state().table.routes[0].generation == 2


def test_a_container_that_is_gone_leaves_the_last_target_and_a_restart_knows_it(wires: Wires) -> None:
    a = wires.providers[0]
    with running(wires, settings(**{"6379": {"to": ["service:redis:6379"]}})) as amb:
        amb.ask(Follow(found={"service:redis": (a.v4,)}), State)
        eventually(lambda: amb.targets()["6379/tcp"])
        amb.ask(Follow(found={}), State)
        eventually(lambda: "ambassador-source" in amb.problems())
        amb.restart()
        assert answerer(wires) == "provider1"


TUNNEL = "node:nas/service:redis:6379"
FAR = f"plaintext:{TUNNEL}"


def test_what_is_on_another_node_stays_until_the_agent_knows_where_it_is_or_that_it_is_not(wires: Wires) -> None:
    a, b = (f"{provider.v4}:{port}" for provider, port in zip(wires.providers, (6379, 6380), strict=True))
    environ = settings(**{"6379": {"to": [FAR], "plaintext": True, "down": "refuse"}})
    with running(wires, environ) as amb:
        amb.ask(Follow(found={FAR: (a,)}), State)
        eventually(lambda: amb.targets() == {"6379/tcp": (a,)})
        assert answerer(wires) == "provider1"
        for _ in range(2):
            amb.ask(Follow(found={}), State)
            assert answerer(wires) == "provider1"
            amb.restart()
        amb.ask(Follow(found={FAR: (b,)}), State)
        eventually(lambda: amb.targets() == {"6379/tcp": (b,)})
        amb.ask(Follow(found={FAR: ()}), State)
        assert eventually(lambda: amb.state().listeners[0].down) == "refuse"
        with pytest.raises(Dom0Error, match="is not ADDRESS:PORT"):
            amb.ask(Follow(found={FAR: ("nas:6379",)}), State)


def test_a_rewire_leads_to_another_node_where_the_listener_may(wires: Wires) -> None:
    a, b = (provider.v4 for provider in wires.providers)
    environ = settings(
        **{
            "6379": {"to": [f"{a}:6379"], "plaintext": True},
            "6380": {"to": [f"{a}:6380"]},
            "53/udp": {"to": [f"{a}:6379"], "plaintext": True},
        }
    )
    with running(wires, environ) as amb:
        amb.ask(Follow(found={FAR: (f"{b}:6379",)}), State)
        with pytest.raises(Dom0Error, match=r"to: plaintext:node:nas/service:redis:6379: nothing would be encrypted"):
            amb.rewire(FAR, listener="6380")
        with pytest.raises(Dom0Error, match=r"to: node:nas/service:redis:6379: to another node goes TCP alone"):
            amb.rewire(TUNNEL, listener="53/udp")
        with pytest.raises(Dom0Error, match=r"to: no address is known for node:nas/service:redis:6379"):
            amb.rewire(TUNNEL, listener="6380")
        assert amb.rewire(TUNNEL, listener="6379").after == (f"{b}:6379",), "as the listener says"
        assert answerer(wires) == "provider2"
        assert amb.state().listeners[0].sources == (FAR,)
        amb.ask(Follow(found={TUNNEL: (f"{b}:6380",)}), State)
        assert amb.rewire(TUNNEL, listener="6380").after == (f"{b}:6380",)


# who watches


def test_watchers_get_the_state_at_once_and_after_every_change(wires: Wires, amb: ControlPlane) -> None:
    states = amb.states()
    assert next(states).table.routes[0].generation == 1
    amb.rewire(wires.providers[1].v4)
    assert any(state.table.routes[0].generation == 2 for state in states)
