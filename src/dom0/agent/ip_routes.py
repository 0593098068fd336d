"""The routes of a container as the kernel lists them. Pure but for `read`.

Source: /proc/PID/net/route and ipv6_route, Linux `net/ipv4/fib_trie.c` (fib_route_seq_show) and `net/ipv6/route.c`
(rt6_info_route).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_UP, _REJECT = 0x1, 0x200  # <linux/route.h>

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class IpRoute(msgspec.Struct, frozen=True):
    """`gateway` empty: whoever is meant is a neighbour."""

    network: Network
    gateway: str = ""


def read(proc: Path, pid: int) -> tuple[IpRoute, ...]:
    """Of the network namespace of process `pid`. Raises OSError when it is gone."""
    v4, v6 = (proc / str(pid) / "net" / name for name in ("route", "ipv6_route"))
    return (*parse(v4.read_text()), *(parse_v6(v6.read_text()) if v6.exists() else ()))


def parse(text: str) -> Iterator[IpRoute]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        if int(fields[3], 16) & (_UP | _REJECT) != _UP:
            continue
        words = (struct.pack("=I", int(fields[number], 16)) for number in (1, 2, 7))  # in this machine's byte order
        destination, gateway, mask = map(ipaddress.IPv4Address, words)
        network = ipaddress.IPv4Network(f"{destination}/{mask}")
        yield IpRoute(network, "" if gateway == ipaddress.IPv4Address(0) else str(gateway))


def parse_v6(text: str) -> Iterator[IpRoute]:
    for line in text.splitlines():
        destination, length, _, _, gateway, _, _, _, flags, interface = line.split()
        if int(flags, 16) & (_UP | _REJECT) != _UP or interface == "lo":
            continue
        network = ipaddress.IPv6Network((bytes.fromhex(destination), int(length, 16)))
        via = ipaddress.IPv6Address(bytes.fromhex(gateway))
        yield IpRoute(network, "" if via == ipaddress.IPv6Address(0) else str(via))


def route_to(routes: Iterable[IpRoute], address: str) -> IpRoute | None:
    """The longest match, as the kernel decides."""
    meant = ipaddress.ip_address(address)
    fitting = [route for route in routes if route.network.version == meant.version and meant in route.network]
    return max(fitting, key=lambda route: route.network.prefixlen, default=None)


def obstacle(consumer: Iterable[IpRoute], ambassador: Iterable[IpRoute], target: str) -> str:
    """Why packets of the consumer may not get to `target` where the ambassador's do; empty: they do.

    A neighbour is reached. Anybody else is if both send to the same gateway: from there on the route is the same.
    """
    own, theirs = route_to(consumer, target), route_to(ambassador, target)
    if own is None:
        return f"it has no route to {target}"
    if own.gateway and (theirs is None or theirs.gateway != own.gateway):
        return f"the ambassador reaches {target} on another network"
    return ""
