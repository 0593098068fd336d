"""What the tunnel of a node is to be: its address, its rules and WireGuard's configuration, as texts. Pure.

Theory of operation: each node has a key pair of its own; the server tells public keys, and of whom they are. A node's
address in the tunnel is made of its public key, so there is nothing to hand out. It is of 240.0.0.0/5, which no network
uses and Linux takes as any other: containers have IPv4 for certain, and an address that a network of the house has too
would lead the wrong way.

WireGuard lets in what was sent by the key that an address belongs to. Of that our table lets in what the server has
said: connections of that node to those services that it wants, which are led to their containers. The translation is
before the Engine's, and what it does not translate is dropped there: ports that are published for others, and all that
the host itself listens at, are in no tunnel. Hooks of type nat see the first packet of a connection alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

INTERFACE = "dom0-farm"
TABLE = "dom0_farm"
PORT = 7703  # UDP; beside 7701 of the server and 7702 of blobs
NETWORK = ip_network("240.0.0.0/5")

KEY_PATTERN = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="  # 32 bytes in Base64
PublicKey = Annotated[str, Meta(pattern=rf"^{KEY_PATTERN}\Z")]


class Peer(msgspec.Struct, frozen=True, order=True):
    """Another node. `host`: its address in the network, "" where none is known by which others reach it."""

    key: PublicKey
    host: str = ""


class Entrance(msgspec.Struct, frozen=True, order=True):
    """Of a container's port: `port` in the tunnel leads to `to_port` at its `address`."""

    port: int
    address: str
    to_port: int


class TunnelState(msgspec.Struct, frozen=True):
    """`forwards`: the address of a node in the tunnel, and a port that it may use."""

    peers: tuple[Peer, ...] = ()
    forwards: tuple[tuple[str, Entrance], ...] = ()


def address_of(key: str) -> str:
    digest = hashlib.sha256(b"dom0 farm tunnel\n" + base64.b64decode(key)).digest()
    number = int.from_bytes(digest[:4], "big") % (NETWORK.num_addresses - 2)
    return str(NETWORK[number + 1])


def desired(
    peers: Iterable[Peer], guests: Iterable[tuple[str, Collection[str]]], entrances: dict[str, tuple[Entrance, ...]]
) -> TunnelState:
    """`guests`: of a service, the keys of the nodes that want it; of those ports in the tunnel the first one counts."""
    first: dict[int, Entrance] = {}
    forwards = set[tuple[str, Entrance]]()
    for service, keys in sorted(guests):
        for entrance in entrances[service]:
            if first.setdefault(entrance.port, entrance) == entrance:
                forwards |= {(address_of(key), entrance) for key in keys}
    return TunnelState(tuple(sorted(peers)), tuple(sorted(forwards)))


def configuration(private_key: str, peers: Iterable[Peer], moved: Collection[Peer]) -> str:
    """For `wg syncconf`. `moved`: those whose address in the network is set; of others WireGuard's own stays."""
    lines = ["[Interface]", f"PrivateKey = {private_key}", f"ListenPort = {PORT}"]
    for peer in peers:
        lines += ["[Peer]", f"PublicKey = {peer.key}", f"AllowedIPs = {address_of(peer.key)}/32"]
        if peer in moved and (endpoint := _endpoint(peer.host)):
            lines.append(f"Endpoint = {endpoint}")
    return "".join(f"{line}\n" for line in lines)


def _endpoint(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.scope_id is not None:  # is of one link alone
        return ""
    return f"[{address}]:{PORT}" if address.version == 6 else f"{address}:{PORT}"


def rules(forwards: Iterable[tuple[str, Entrance]]) -> str:
    """For `nft -f -`: all of the table, in one transaction."""
    types = "ipv4_addr . inet_service : ipv4_addr . inet_service"
    elements = ", ".join(
        f"{IPv4Address(source)} . {to.port:d} : {IPv4Address(to.address)} . {to.to_port:d}" for source, to in forwards
    )
    only = f'iifname "{INTERFACE}"'
    lines = [
        *remove_rules().splitlines(),
        f"add table ip {TABLE}",
        f"add map ip {TABLE} forwards {{ type {types}; }}",
        *([f"add element ip {TABLE} forwards {{ {elements} }}"] if elements else []),
        f"add chain ip {TABLE} arriving {{ type nat hook prerouting priority -110; }}",
        f"add rule ip {TABLE} arriving {only} meta l4proto tcp dnat ip to ip saddr . tcp dport map @forwards",
        f"add rule ip {TABLE} arriving {only} drop",
    ]
    return "".join(f"{line}\n" for line in lines)


def remove_rules() -> str:
    return f"add table ip {TABLE}\ndelete table ip {TABLE}\n"
