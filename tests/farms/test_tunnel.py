"""What a node's tunnel is to be, as texts; what the kernel makes of them is in test_wireguard.py."""

from __future__ import annotations

import base64
from ipaddress import ip_address

import msgspec
import pytest

from dom0.farms import tunnel
from dom0.farms.tunnel import Entrance, Peer, PublicKey


def key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "big")).decode()


A, B = key(1), key(2)
REDIS, WEB = Entrance(7000, "172.17.0.2", 6379), Entrance(8000, "172.17.0.3", 80)


def test_each_key_has_an_address_of_a_network_that_nobody_uses() -> None:
    addresses = {tunnel.address_of(key(number)) for number in range(1000)}
    assert len(addresses) == 1000
    assert all(ip_address(address) in tunnel.NETWORK for address in addresses)
    assert tunnel.address_of(A) == "247.101.78.22", "all nodes have to find the same"


def test_a_node_comes_to_what_it_wants_and_to_nothing_else() -> None:
    state = tunnel.desired(
        [Peer(B, "10.0.0.2"), Peer(A)],
        [("service:redis:6379", (A, B)), ("service:web:80", (B,))],
        {"service:redis:6379": (REDIS,), "service:web:80": (WEB,)},
    )
    assert set(state.forwards) == {
        (tunnel.address_of(A), REDIS),
        (tunnel.address_of(B), REDIS),
        (tunnel.address_of(B), WEB),
    }
    assert f"{tunnel.address_of(B)} . 8000 : 172.17.0.3 . 80" in tunnel.rules(state.forwards)


def test_of_two_services_at_one_port_the_first_is_led_to() -> None:
    other = Entrance(7000, "172.17.0.9", 1)
    state = tunnel.desired([], [("service:b:1", (A,)), ("service:a:6379", (A,))], {
        "service:a:6379": (REDIS,),
        "service:b:1": (other,),
    })  # fmt: skip
    assert [entrance for _, entrance in state.forwards] == [REDIS]


def test_only_a_peer_that_is_new_or_has_moved_is_told_where_it_is() -> None:
    four, six, near, unknown = Peer(A, "10.0.0.1"), Peer(B, "2001:db8::1"), Peer(key(3), "fe80::1%eth0"), Peer(key(4))
    peers = (four, six, near, unknown)
    assert [
        line.removeprefix("Endpoint = ")
        for line in tunnel.configuration("secret", peers, peers).splitlines()
        if line.startswith("Endpoint")
    ] == [f"10.0.0.1:{tunnel.PORT}", f"[2001:db8::1]:{tunnel.PORT}"]
    text = tunnel.configuration("secret", peers, [four])
    assert (text.count("[Peer]"), text.count("Endpoint")) == (4, 1)


@pytest.mark.parametrize("text", ["", A[:-1], A + "=", "x" * 43 + "=", A.replace("A", "\n", 1), A.replace("A", "-", 1)])
def test_what_is_no_key_is_refused(text: str) -> None:
    msgspec.convert(A, PublicKey)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, PublicKey)
