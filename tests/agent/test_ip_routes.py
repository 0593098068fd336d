"""Routes as the kernel lists them, and what they say of a shortcut."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from dom0.agent.ip_routes import IpRoute, obstacle, parse, parse_v6, read, route_to

LISTED = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
*\t0000000A\t00000000\t0200\t0\t0\t0\t000000FF\t0\t0\t0
"""
"""Of a little-endian machine, as all that Docker runs on are."""
LISTED_V6 = """\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo
"""  # noqa: E501 -- as it is


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


CONSUMER = tuple(parse(LISTED))


def test_routes_are_read_and_those_that_lead_nowhere_left_out() -> None:
    assert set(CONSUMER) == {
        IpRoute(network("0.0.0.0/0"), "172.18.0.1"),
        IpRoute(network("172.18.0.0/16")),
        IpRoute(network("172.19.0.0/16")),
    }
    assert set(parse_v6(LISTED_V6)) == {IpRoute(network("fd00::/64")), IpRoute(network("::/0"), "fd00::1")}


def test_this_process_has_routes() -> None:
    assert read(Path("/proc"), 1)


def test_the_longest_match_decides() -> None:
    assert route_to(CONSUMER, "172.19.0.5") == IpRoute(network("172.19.0.0/16"))
    assert route_to(CONSUMER, "10.1.0.2") == IpRoute(network("0.0.0.0/0"), "172.18.0.1")
    assert route_to(CONSUMER, "fd00::5") is None


@pytest.mark.parametrize(
    ("ambassador", "target", "reason"),
    [
        ((), "172.19.0.5", ""),  # a neighbour of the consumer
        ((IpRoute(network("0.0.0.0/0"), "172.18.0.1"),), "10.1.0.2", ""),
        (
            (IpRoute(network("0.0.0.0/0"), "172.20.0.1"),),
            "10.1.0.2",
            "the ambassador reaches 10.1.0.2 on another network",
        ),
        ((IpRoute(network("10.1.0.0/24")),), "10.1.0.2", "the ambassador reaches 10.1.0.2 on another network"),
        ((), "10.1.0.2", "the ambassador reaches 10.1.0.2 on another network"),
        ((), "fd00::5", "it has no route to fd00::5"),
    ],
)
def test_a_shortcut_needs_a_way_that_leads_where_the_ambassadors_does(
    ambassador: tuple[IpRoute, ...], target: str, reason: str
) -> None:
    assert obstacle(CONSUMER, ambassador, target) == reason
