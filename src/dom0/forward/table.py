"""What is forwarded where, as a value: listeners, their targets and generations. Pure.

A generation is one set of targets of one listener. Its number is given once, never again and to no other listener: it
is the conntrack mark of every connection made under it, so connections of a rewire that was undone, or of an address
that is used again, are never confused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

Udp = Literal["move", "keep"]  # to the new target at once, or never
Family = Literal["ip", "ip6"]  # nftables' words
FAMILIES: tuple[Family, ...] = ("ip", "ip6")

MOST_ROUTES = 4096  # listeners of one ambassador; a range counts each of its ports
MOST_TARGETS = 64  # of one listener
HEAVIEST = 1000  # weight of a target
_LISTENER = re.compile(r"(\d{1,5})(?:/(tcp|udp))?", re.ASCII)


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


class Down(StrEnum):
    """What a new connection meets while no target is up."""

    REFUSE = "refuse"  # TCP reset, ICMP port unreachable
    HOLD = "hold"  # nothing: it tries again by itself and connects when the target is back


class Listener(msgspec.Struct, frozen=True, order=True):
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}"


class Target(msgspec.Struct, frozen=True, order=True):
    """`address` in its shortest form (`ipaddress` prints it so)."""

    address: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def family(self) -> Family:
        return "ip6" if ":" in self.address else "ip"


class Route(msgspec.Struct, frozen=True):
    """`down` is None while connections are to be forwarded; only then there have to be targets. Those of both families
    serve consumers of their own.
    """

    listener: Listener
    generation: int
    targets: tuple[Target, ...]
    down: Down | None = None

    def targets_of(self, family: Family) -> tuple[Target, ...]:
        return tuple(target for target in self.targets if target.family == family)


class Table(msgspec.Struct, frozen=True):
    """Routes in the order of their listeners, each listener once, targets in theirs; build it with `table`."""

    routes: tuple[Route, ...] = ()

    @property
    def by_listener(self) -> dict[Listener, Route]:
        return {route.listener: route for route in self.routes}


def table(routes: Iterable[Route]) -> Table:
    """Raises ValueError for what no data plane could hold: a listener or generation twice, too many, out of range."""
    # The same set of targets is the same route, in whatever order a name server told them.
    in_order = (msgspec.structs.replace(route, targets=tuple(sorted(route.targets))) for route in routes)
    ordered = tuple(sorted(in_order, key=lambda route: route.listener))
    if len(ordered) > MOST_ROUTES:
        raise ValueError(f"{len(ordered)} listeners are more than {MOST_ROUTES}")
    if len({route.listener for route in ordered}) != len(ordered):
        raise ValueError("a listener is listed twice")
    if len({route.generation for route in ordered}) != len(ordered):
        raise ValueError("two listeners have one generation")
    for route in ordered:
        _check(route)
    return Table(ordered)


def _check(route: Route) -> None:
    if not 1 <= route.listener.port <= 65535:
        raise ValueError(f"{route.listener}: is not a port")
    if not 1 <= route.generation < 2**32:
        raise ValueError(f"{route.listener}: {route.generation} is not a generation")
    if not (route.down is None) <= len(route.targets) <= MOST_TARGETS:
        raise ValueError(f"{route.listener}: has {len(route.targets)} targets, 1 to {MOST_TARGETS} are possible")
    if len({(target.address, target.port) for target in route.targets}) != len(route.targets):
        raise ValueError(f"{route.listener}: a target is listed twice")
    for target in route.targets:
        check_address(target.address)
        if not 1 <= target.port <= 65535 or not 1 <= target.weight <= HEAVIEST:
            raise ValueError(f"{route.listener}: {target} has a port or weight out of range")


def check_address(text: str) -> None:
    """Raises ValueError: it cannot stand in a rule."""
    if "%" in text or str(ipaddress.ip_address(text)) != text:
        raise ValueError(f"{text!r} is not the short form of an address")


def parse_listener(text: str) -> Listener:
    """`6379`, `6379/tcp`, `53/udp`. Raises ValueError."""
    match = _LISTENER.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"{text!r} is not a listener: 6379, 6379/tcp or 53/udp")
    return Listener(Protocol(match[2] or "tcp"), int(match[1]))
