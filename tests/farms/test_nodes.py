"""Which machines wait and which are nodes, step by step and at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.errors import Dom0Error, UsageError
from dom0.farms import loader
from dom0.farms import nodes as registry
from dom0.farms.nodes import Firmware, MachineInfo, Node, Nodes, NodeState, NotAdmitted, TooMany, key_of

NOW = 1_000_000.0
PC = MachineInfo(hostname="pc", architecture="x86_64", memory=4 << 30)


def codes() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):06x}"


def hear(nodes: Nodes, machine: str = "a", address: str = "10.0.0.1", now: float = NOW) -> tuple[Nodes, Node]:
    return registry.hear(nodes, key_of(machine), PC, address, now, codes())


def approved(name: str = "nas", machine: str = "a") -> Nodes:
    waiting, node = hear(Nodes(), machine)
    return registry.approve(waiting, node.code, name, "store")[0]


def test_a_machine_waits_is_approved_and_is_told() -> None:
    waiting, node = hear(Nodes())
    assert (node.state, node.code, node.name) == (NodeState.WAITING, "000001", "")
    after, node = registry.approve(waiting, "000001", "nas", "store")
    assert (node.state, node.code, node.name, node.role) == (NodeState.APPROVED, "", "nas", "store")
    after, node = hear(after)
    assert (node.state, node.name, node.role) == (NodeState.ENROLLED, "nas", "store")
    assert hear(after)[0] == after


def test_another_secret_is_another_machine_whatever_it_says_of_itself() -> None:
    after, other = hear(approved(), "b")
    assert (other.state, other.name) == (NodeState.WAITING, "")
    assert [node.state for node in after.nodes] == [NodeState.APPROVED, NodeState.WAITING]


def test_who_a_machine_is_goes_with_its_data_disk() -> None:
    waiting, node = hear(approved("nas", "a"), "b", "10.0.0.2")
    nodes, _ = registry.approve(waiting, node.code, "pi", "web")
    for disk, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("a", "10.0.0.2"), ("b", "10.0.0.1")):
        nodes, _ = hear(nodes, disk, address)
    found = [(node.name, node.role, node.address, node.state) for node in nodes.nodes]
    assert found == [
        ("nas", "store", "10.0.0.2", NodeState.ENROLLED),
        ("pi", "web", "10.0.0.1", NodeState.ENROLLED),
    ]


def test_a_code_is_good_once() -> None:
    waiting, node = hear(Nodes())
    after, _ = registry.approve(waiting, node.code, "nas", "store")
    with pytest.raises(UsageError, match="no machine waits with this code"):
        registry.approve(after, node.code, "other", "store")


def test_who_is_silent_is_forgotten_and_gets_another_code() -> None:
    draw = codes()
    waiting, node = registry.hear(Nodes(), key_of("a"), PC, "10.0.0.1", NOW, draw)
    later = NOW + registry.WAITING_FOR
    after, other = registry.hear(waiting, key_of("b"), PC, "10.0.0.1", later, draw)
    assert [one.key for one in after.nodes] == [other.key]
    with pytest.raises(UsageError):
        registry.approve(after, node.code, "nas", "store")
    _, again = registry.hear(after, key_of("a"), PC, "10.0.0.1", later, draw)
    assert again.code not in (node.code, other.code)


def test_a_clock_that_was_set_back_forgets_who_waits_and_no_node() -> None:
    nodes, _ = hear(approved(), "b")
    after, _ = hear(nodes, "c", now=10.0)
    assert [node.key for node in after.nodes] == [key_of("a"), key_of("c")]


def test_a_node_is_never_forgotten_by_itself() -> None:
    after, _ = hear(approved(), "b", now=NOW + 1e9)
    assert after.named("nas").state is NodeState.APPROVED


def test_those_that_wait_are_limited_for_each_address_and_together() -> None:
    nodes, draw = Nodes(), codes()

    def knock(number: int, address: str) -> None:
        nonlocal nodes
        nodes, _ = registry.hear(nodes, key_of(str(number)), PC, address, NOW, draw)

    for number in range(registry.MOST_WAITING_EACH):
        knock(number, "10.0.0.1")
    with pytest.raises(TooMany, match="at this address"):
        knock(99, "10.0.0.1")
    knock(0, "10.0.0.1")  # it waits already
    for number in range(registry.MOST_WAITING_EACH, registry.MOST_WAITING):
        knock(number, f"10.0.1.{number}")
    with pytest.raises(TooMany, match="64 machines wait"):
        knock(99, "10.0.0.2")


def test_a_node_is_let_in_however_many_wait() -> None:
    nodes, draw = approved(), codes()
    for number in range(registry.MOST_WAITING):
        nodes, _ = registry.hear(nodes, key_of(f"x{number}"), PC, f"10.0.1.{number}", NOW, draw)
    assert hear(nodes)[1].state is NodeState.ENROLLED


def test_two_machines_never_have_one_code() -> None:
    first, node = hear(Nodes(), "a")
    drawn = iter([node.code, node.code, "00ffff"])
    assert registry.hear(first, key_of("b"), PC, "10.0.0.1", NOW, lambda: next(drawn))[1].code == "00ffff"


@pytest.mark.parametrize("name", ["", "Nas", "na s", "../nas", "-nas", "a" * 64, "nas\n", "${net0}", "db6916"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    waiting, node = hear(Nodes())
    with pytest.raises(UsageError, match="is no name for a node"):
        registry.approve(waiting, node.code, name, "store")


def test_two_nodes_of_one_name_are_refused() -> None:
    nodes, node = hear(approved(), "b")
    with pytest.raises(Dom0Error, match="there is a node of this name"):
        registry.approve(nodes, node.code, "nas", "store")


def test_a_node_gets_another_role_and_a_typing_mistake_is_named() -> None:
    after, node = registry.assign(approved(), "nas", "web")
    assert (node.role, after.named("nas").role) == ("web", "web")
    with pytest.raises(UsageError) as refused:
        registry.assign(after, "nass", "web")
    assert refused.value.hint == "did you mean nas?"


def test_what_is_removed_waits_again() -> None:
    gone, node = registry.remove(approved(), "nas")
    assert gone == Nodes()
    assert node.name == "nas"
    assert hear(gone)[1].state is NodeState.WAITING
    waiting, node = hear(Nodes())
    assert registry.remove(waiting, node.code)[0] == Nodes()
    for nothing in ("", "nas", "-"):
        with pytest.raises(UsageError):
            registry.remove(waiting, nothing)


ACTIONS = st.one_of(
    st.tuples(st.just("hear"), st.integers(0, 12), st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])),
    st.tuples(st.just("approve"), st.integers(0, 12), st.sampled_from(["nas", "pi1", "pi2"])),
    st.tuples(st.just("guess"), st.integers(1, 20), st.sampled_from(["nas", "pi1", "pi2"])),
    st.tuples(st.just("remove"), st.integers(0, 12), st.sampled_from(["nas", "pi1", "pi2"])),
    st.tuples(st.just("wait"), st.sampled_from([-3600, 5, 700]), st.just("")),
)


@given(st.lists(ACTIONS, max_size=60))
def test_at_random_only_who_was_approved_is_a_node(actions: list[tuple[str, int, str]]) -> None:
    """Beside it a model: who waits with which code, as they were told, and what a person did with it."""
    nodes, draw, now = Nodes(), codes(), NOW
    told: dict[str, str] = {}  # code -> secret
    let_in: dict[str, str] = {}  # secret -> name
    for what, number, word in actions:
        secret = str(number)
        try:
            if what == "hear":
                nodes, node = registry.hear(nodes, key_of(secret), PC, word, now, draw)
                assert (node.state is NodeState.WAITING) == (secret not in let_in)
                assert node.name == let_in.get(secret, "")
                if node.code:
                    assert told.setdefault(node.code, secret) == secret
            elif what == "approve" and (code := next((c for c, s in told.items() if s == secret), "")):
                nodes, _ = registry.approve(nodes, code, word, "web")
                let_in[secret] = word
            elif what == "guess":
                nodes, _ = registry.approve(nodes, f"{number:06x}", word, "web")
                let_in[told[f"{number:06x}"]] = word
            elif what == "remove":
                nodes, _ = registry.remove(nodes, word)
                let_in = {one: name for one, name in let_in.items() if name != word}
            else:
                now += number if what == "wait" else 0
        except Dom0Error:
            pass
        assert {node.key: node.name for node in nodes.nodes if node.name} == {key_of(s): n for s, n in let_in.items()}
        assert len({node.code for node in nodes.nodes if node.code}) == sum(bool(node.code) for node in nodes.nodes)
        assert all(bool(node.code) == (node.state is NodeState.WAITING) for node in nodes.nodes)


# in the network loader

CARD = Firmware(mac="52:54:00:00:00:01", uuid="11111111-1111-4111-8111-111111111111")


def boots(
    nodes: Nodes, own: str = "pass", draw: Callable[[], str] | None = None, now: float = NOW
) -> tuple[Nodes, Node]:
    return registry.hear(nodes, key_of(own), PC, "10.0.0.1", now, draw or codes(), CARD)


def loading(now: float = NOW) -> Nodes:
    waiting, node = boots(Nodes())
    after, _ = registry.approve(waiting, node.code, "nas", "store")
    assert boots(after)[1].state is NodeState.APPROVED  # to be asked for is not to be loaded
    return registry.load(after, key_of("pass"), key_of("ticket"), now)[0]


def test_a_pass_that_was_approved_becomes_a_ticket_and_that_a_node_each_once() -> None:
    after = loading()
    assert after.named("nas").state is NodeState.LOADING
    with pytest.raises(NotAdmitted):
        registry.load(after, key_of("pass"), key_of("other"), NOW)
    enrolled, node = registry.enroll(after, key_of("ticket"), key_of("secret"), NOW + 60)
    assert (node.state, node.key, node.name, node.firmware) == (NodeState.ENROLLED, key_of("secret"), "nas", CARD)
    with pytest.raises(NotAdmitted):
        registry.enroll(enrolled, key_of("ticket"), key_of("thief"), NOW + 61)
    assert registry.of_firmware(enrolled, CARD) == node


def test_a_pass_that_nobody_approved_is_worth_nothing() -> None:
    waiting, node = boots(Nodes())
    approved_elsewhere = approved("pi1", "secret")
    for nodes, key in ((waiting, node.key), (waiting, key_of("x")), (approved_elsewhere, key_of("secret"))):
        with pytest.raises(NotAdmitted):
            registry.load(nodes, key, key_of("ticket"), NOW)


@pytest.mark.parametrize("later", [registry.TICKET_FOR, 1e9, -1.0, -NOW])
def test_a_ticket_that_is_late_or_of_a_clock_that_was_set_is_worth_nothing(later: float) -> None:
    with pytest.raises(NotAdmitted):
        registry.enroll(loading(), key_of("ticket"), key_of("secret"), NOW + later)


def test_a_machine_that_waited_by_itself_gives_its_place_up_for_its_ticket() -> None:
    both, _ = hear(loading(), "secret", now=NOW)
    after, _ = registry.enroll(both, key_of("ticket"), key_of("secret"), NOW)
    assert [(node.name, node.state) for node in after.nodes] == [("nas", NodeState.ENROLLED)]


def test_a_card_and_a_board_are_a_nodes_only_when_it_is_enrolled() -> None:
    waiting, _ = boots(Nodes())
    for nodes in (waiting, loading()):
        assert registry.of_firmware(nodes, CARD) is None


def test_boards_that_say_one_uuid_and_cards_that_say_two_are_machines_of_their_own() -> None:
    nodes, _ = registry.enroll(loading(), key_of("ticket"), key_of("a"), NOW)
    same_uuid = Firmware(mac="52:54:00:00:00:99", uuid=CARD.uuid)
    same_mac = Firmware(mac=CARD.mac, uuid="22222222-2222-4222-8222-222222222222")
    draw = codes()
    for own, firmware in (("b", same_uuid), ("c", same_mac)):
        assert registry.of_firmware(nodes, firmware) is None
        nodes, node = registry.hear(nodes, key_of(own), PC, "10.0.0.1", NOW, draw, firmware)
        assert node.state is NodeState.WAITING
    assert [node.name for node in nodes.nodes] == ["nas", "", ""]
    found = registry.of_firmware(nodes, CARD)
    assert found is not None
    assert found.name == "nas"


def test_boards_without_a_uuid_are_machines_by_their_cards() -> None:
    """All of them say the same."""
    nodes, draw = Nodes(), codes()
    for number in range(3):
        board = Firmware(mac=f"52:54:00:00:00:0{number}", uuid="00000000-0000-0000-0000-000000000000")
        own, ticket, secret = (key_of(f"{word} {number}") for word in ("pass", "ticket", "secret"))
        assert registry.of_firmware(nodes, board) is None
        nodes, node = registry.hear(nodes, own, PC, "10.0.0.1", NOW, draw, board)
        nodes, _ = registry.approve(nodes, node.code, f"pi{number}", "web")
        nodes, _ = registry.load(nodes, own, ticket, NOW)
        nodes, node = registry.enroll(nodes, ticket, secret, NOW)
        assert registry.of_firmware(nodes, board) == node
    assert [node.name for node in nodes.nodes] == ["pi0", "pi1", "pi2"]


def test_a_machine_that_is_switched_off_and_on_while_it_waits_is_one() -> None:
    draw, nodes = codes(), Nodes()
    for number in range(100):
        nodes, node = boots(nodes, f"pass{number}", draw, NOW + number * loader.PAUSE)
    assert nodes.nodes == (node,)


def test_who_boots_without_a_pause_changes_nothing() -> None:
    """Each change is a write to the disk, before the one who asks is known at all."""
    nodes, _ = boots(Nodes())
    for later in (0.0, registry.AGAIN_AFTER / 2):
        with pytest.raises(TooMany, match="a moment ago"):
            boots(nodes, "other", now=NOW + later)
    assert boots(nodes)[0] == nodes  # with its pass it is the same boot
    assert boots(nodes, "other", now=NOW - 1)[1].key == key_of("other")  # of a clock that was set back


@pytest.mark.parametrize(
    "said",
    [
        {"mac": "", "uuid": CARD.uuid},
        {"mac": "52:54:00:00:00:01\n", "uuid": CARD.uuid},
        {"mac": "52:54:00:00:00", "uuid": CARD.uuid},
        {"mac": CARD.mac, "uuid": "${uuid}"},
        {"mac": CARD.mac, "uuid": "../../x"},
        {"mac": CARD.mac},
    ],
)
def test_what_is_no_card_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(said, Firmware)
