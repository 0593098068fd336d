"""Tunnels between nodes on wires, by Debian's WireGuard in user space: a host, another one, and what is behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dom0.farms import tunnel, wireguard
from dom0.farms.tunnel import INTERFACE, Entrance, Peer, TunnelState, address_of
from dom0.farms.wireguard import NoTunnel, Tunnel
from dom0.testing import wires
from dom0.testing.wireguard import Capture, WireGuard, missing
from dom0.testing.wires import Node, Provider, Wires, make_router

pytestmark = pytest.mark.skipif(bool(wires.missing() or missing()), reason=wires.missing() or missing())
SECRET = "nobody-reads-this"
PORT = 7000


class End:
    """A node with its tunnel."""

    def __init__(self, node: Node, state: Path) -> None:
        self.node = node
        self.wireguard = WireGuard(node)
        self.tunnel = Tunnel(state)
        self.key = self.wireguard.do(self.tunnel.open)
        self.address = address_of(self.key)

    @property
    def peer(self) -> Peer:
        return Peer(self.key, self.node.v4)

    def set(self, *peers: Peer, forwards: tuple[tuple[str, Entrance], ...] = ()) -> None:
        self.wireguard.do(lambda: self.tunnel.set(TunnelState(peers, forwards)))

    def hears(self, address: str, port: int, text: str = SECRET) -> str:
        return self.node.connect(address, port).ask(text)


class Farm:
    """`pc` wants what `container` serves at port 6379, which is behind `nas`; `other` is a node too."""

    def __init__(self, made: Wires, state: Path, stack: ExitStack) -> None:
        self.pc, self.nas, self.other = (End(made.node(name), state / name) for name in ("pc", "nas", "other"))
        for end in (self.pc, self.nas, self.other):
            stack.callback(end.wireguard.stop)
        self.container: Provider = made.providers[0]
        make_router(self.nas.node)
        self.container.run("ip", "route", "add", str(tunnel.NETWORK), "via", self.nas.node.v4)
        self.entrance = Entrance(PORT, self.container.v4, 6379)

    def connect(self) -> None:
        self.nas.set(self.pc.peer, self.other.peer, forwards=((self.pc.address, self.entrance),))
        self.pc.set(self.nas.peer)
        self.other.set(self.nas.peer)


@contextmanager
def capturing(node: Node) -> Iterator[Capture]:
    capture = Capture(node.call)
    try:
        yield capture
    finally:
        capture.close()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with ExitStack() as stack:
        yield Farm(stack.enter_context(Wires(providers=1)), tmp_path, stack)


def test_what_goes_by_the_tunnel_is_not_to_be_read_on_the_network(farm: Farm) -> None:
    farm.connect()
    with capturing(farm.pc.node) as capture:
        assert farm.pc.hears(farm.container.v4, 6379) == f"provider1:{SECRET}"
        assert SECRET.encode() in capture.take(), "it would be seen"
        assert farm.pc.hears(farm.nas.address, PORT) == f"provider1:{SECRET}"
        assert SECRET.encode() not in (seen := capture.take())
        assert len(seen) > 200, "and went by there"


def is_reached(end: End, address: str, port: int) -> bool:
    made = end.node.socket()
    made.settimeout(2)  # what is dropped is silent
    try:
        made.connect((address, port))
    except OSError:
        return False
    return True


def test_a_node_gets_where_it_may_and_nowhere_else(farm: Farm) -> None:
    farm.connect()
    listening = farm.nas.node.socket()
    listening.bind(("0.0.0.0", 22))  # noqa: S104 -- of a namespace that is ours
    listening.listen()
    assert is_reached(farm.pc, farm.nas.address, PORT)
    assert is_reached(farm.pc, farm.nas.node.v4, 22), "it is there"
    assert not is_reached(farm.pc, farm.nas.address, 22)
    assert not is_reached(farm.other, farm.nas.address, PORT), "which did not ask for it"
    both = f"{farm.nas.address}/32,{farm.container.v4}/32"
    farm.pc.wireguard.run("wg", "set", INTERFACE, "peer", farm.nas.key, "allowed-ips", both)
    farm.pc.wireguard.run("ip", "route", "add", f"{farm.container.v4}/32", "dev", INTERFACE)
    assert not is_reached(farm.pc, farm.container.v4, 6379), "nor through the other node to its network"


def test_a_connection_outlives_changes_and_another_process_of_ours(farm: Farm) -> None:
    farm.connect()
    old = farm.pc.node.connect(farm.nas.address, PORT)
    assert old.ask() == "provider1:?"
    for end in (farm.pc, farm.nas):
        again = Tunnel(end.tunnel._key_file.parent)
        assert end.wireguard.do(again.open) == end.key
        end.tunnel = again
        assert old.ask() == "provider1:?"
    farm.connect()
    farm.nas.set(farm.pc.peer, forwards=((farm.pc.address, Entrance(PORT + 1, farm.container.v4, 6379)),))
    assert old.ask() == "provider1:?"
    assert farm.pc.hears(farm.nas.address, PORT + 1) == f"provider1:{SECRET}"


def test_what_somebody_has_changed_is_set_again(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wireguard, "AGAIN", 0.0)
    farm.connect()
    farm.nas.wireguard.run("wg", "set", INTERFACE, "peer", farm.pc.key, "remove")
    farm.nas.node.run("nft", "delete", "table", "ip", tunnel.TABLE)
    farm.connect()
    assert farm.pc.hears(farm.nas.address, PORT) == f"provider1:{SECRET}"


def test_the_private_key_is_for_its_owner_and_a_damaged_one_is_made_anew(farm: Farm) -> None:
    file = farm.pc.tunnel._key_file
    assert file.stat().st_mode & 0o777 == 0o600
    assert farm.pc.key not in file.read_text()
    file.write_text("damaged")
    another = Tunnel(file.parent)
    with pytest.raises(NoTunnel, match="its interface dom0-farm is somebody else's: ip link delete dom0-farm"):
        farm.pc.wireguard.do(another.open)
    farm.pc.wireguard.run("wg", "set", INTERFACE, "private-key", "/dev/null")
    assert farm.pc.wireguard.do(another.open) not in ("", farm.pc.key)


def test_all_of_it_goes_and_what_is_others_stays(farm: Farm) -> None:
    farm.connect()
    nft = ("nft", "list", "tables")
    farm.nas.node.run("nft", "add", "table", "ip", "others")
    assert tunnel.TABLE in farm.nas.node.run(*nft)
    for _ in range(2):
        farm.nas.wireguard.do(farm.nas.tunnel.close)
        assert farm.nas.node.run(*nft).split() == ["table", "ip", "others"]
        assert INTERFACE not in farm.nas.node.run("ip", "link")
        farm.nas.node.run("nft", "add", "table", "ip", tunnel.TABLE)  # as when a process is killed between both


def test_where_the_kernel_has_none_it_is_said(tmp_path: Path) -> None:
    with Wires(consumers=1, providers=0) as made:
        if not has_wireguard(made.consumer):
            with WireGuard(made.ambassador) as there:  # for a network that has none
                there.run("ip", "link", "delete", INTERFACE)
                with pytest.raises(NoTunnel, match="its kernel has no WireGuard"):
                    there.do(Tunnel(tmp_path).open)


def test_an_interface_of_somebody_else_that_has_its_name_stays_as_it_is(tmp_path: Path) -> None:
    with Wires(consumers=1, providers=0) as made, WireGuard(made.ambassador) as there:
        made.ambassador.run("ip", "link", "delete", INTERFACE)
        made.ambassador.run("ip", "link", "add", INTERFACE, "type", "bridge")
        before = made.ambassador.run("ip", "address", "show", INTERFACE)
        for do in (Tunnel(tmp_path).open, Tunnel(tmp_path).close):
            with pytest.raises(NoTunnel, match="wg: exit code"):
                there.do(do)
        assert made.ambassador.run("ip", "address", "show", INTERFACE) == before


def has_wireguard(node: Node) -> bool:
    argv = ["nsenter", f"--net={node.namespace}", "ip", "link", "add", "probe", "type", "wireguard"]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0
