"""Where blobs are given and to whom: addresses as people write them, and the sockets that listen there."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([^:/@\[\]\s]+)):([0-9]{1,5})")


def read_address(text: str) -> tuple[str, int]:
    """Of `HOST:PORT`; of IPv6 as `[fd00::5]:PORT`. Raises ValueError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 1 << 16:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return found[1] or found[2], int(found[3])


def read_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Of addresses, and networks as `192.168.1.0/24`. Raises ValueError."""
    return tuple(map(ip_network, texts))


def listen(host: str, port: int) -> socket.socket:
    """At `::` for IPv4 as well. Raises OSError, and UnicodeError for what is no name of a host."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, dualstack_ipv6=both)


def is_among(address: str, networks: Sequence[Network]) -> bool:
    """Whether a client is: one of IPv4 too that a socket of IPv6 has taken in."""
    found = ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return any((mapped or found) in network for network in networks)
