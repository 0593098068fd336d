"""The text for nftables, and what is read back, without a kernel."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.forward import nft
from dom0.forward.place import consumer, own
from dom0.forward.table import Down, Table, Target, table
from dom0.testing.routes import tcp, udp

ONE = Target("10.0.0.1", 80)
HEAVY = Target("10.0.0.2", 81, 3)
V6 = Target("fd00::1", 80)

OURS = re.compile(r"[a-z0-9_ .:,;{}()|&=!@\[\]/<>*-]*")
PLACES = [own(), consumer("/proc/7/ns/net", ["10.0.0.9", "fd00::9"], "redis")]


def test_a_table_is_written_in_one_transaction_that_first_takes_the_old_one_away() -> None:
    text = nft.replace(own(), table([tcp(7, HEAVY, ONE, V6), udp(8, ONE, listen=53, down=Down.REFUSE)]))
    assert text.splitlines()[:18] == [
        "add table ip dom0_ambassador",
        "delete table ip dom0_ambassador",
        "add table ip dom0_ambassador",
        "add map ip dom0_ambassador listeners { type inet_proto . inet_service : verdict; }",
        "add chain ip dom0_ambassador refuse",
        "add rule ip dom0_ambassador refuse meta l4proto tcp reject with tcp reset",
        "add rule ip dom0_ambassador refuse reject with icmp type port-unreachable",
        "add chain ip dom0_ambassador tcp_6379",
        "add rule ip dom0_ambassador tcp_6379 ct mark set 7",
        "add rule ip dom0_ambassador tcp_6379 meta l4proto tcp dnat ip to "
        "numgen random mod 4 map { 0 : 10.0.0.1 . 80, 1-3 : 10.0.0.2 . 81 }",
        "add rule ip dom0_ambassador tcp_6379 drop",
        "add chain ip dom0_ambassador udp_53",
        "add rule ip dom0_ambassador udp_53 goto refuse",
        "add rule ip dom0_ambassador udp_53 ct mark set 8",
        "add rule ip dom0_ambassador udp_53 meta l4proto udp dnat ip to 10.0.0.1:80",
        "add rule ip dom0_ambassador udp_53 drop",
        "add element ip dom0_ambassador listeners { tcp . 6379 : goto tcp_6379, udp . 53 : goto udp_53 }",
        "add chain ip dom0_ambassador forwarding { type nat hook prerouting priority -100; }",
    ]
    assert "dnat ip6 to [fd00::1]:80" in text


def test_a_rewire_rewrites_the_chains_of_its_listeners_only() -> None:
    before = table([tcp(1, ONE), tcp(2, ONE, listen=7000)])
    after = table([tcp(3, HEAVY), tcp(2, ONE, listen=7000)])
    assert nft.update(own(), before, after) == (
        "flush chain ip dom0_ambassador tcp_6379\n"
        "add rule ip dom0_ambassador tcp_6379 ct mark set 3\n"
        "add rule ip dom0_ambassador tcp_6379 meta l4proto tcp dnat ip to "
        "numgen random mod 3 map { 0-2 : 10.0.0.2 . 81 }\n"
        "add rule ip dom0_ambassador tcp_6379 drop\n"
    )


def test_listeners_that_come_and_go_leave_the_others_as_they_are() -> None:
    stays = tcp(1, ONE)
    before, after = table([stays, udp(2, ONE, listen=53)]), table([stays, tcp(3, ONE, V6, listen=7000)])
    assert nft.update(own(), before, after).splitlines() == [
        "delete element ip dom0_ambassador listeners { udp . 53 }",
        "flush chain ip dom0_ambassador udp_53",
        "delete chain ip dom0_ambassador udp_53",
        "add chain ip dom0_ambassador tcp_7000",
        "add rule ip dom0_ambassador tcp_7000 ct mark set 3",
        "add rule ip dom0_ambassador tcp_7000 meta l4proto tcp dnat ip to 10.0.0.1:80",
        "add rule ip dom0_ambassador tcp_7000 drop",
        "add element ip dom0_ambassador listeners { tcp . 7000 : goto tcp_7000 }",
        "add chain ip6 dom0_ambassador tcp_7000",
        "add rule ip6 dom0_ambassador tcp_7000 ct mark set 3",
        "add rule ip6 dom0_ambassador tcp_7000 meta l4proto tcp dnat ip6 to [fd00::1]:80",
        "add rule ip6 dom0_ambassador tcp_7000 drop",
        "add element ip6 dom0_ambassador listeners { tcp . 7000 : goto tcp_7000 }",
    ]


def test_where_nothing_differs_nothing_is_written() -> None:
    assert nft.update(own(), table([tcp(1, ONE)]), table([tcp(1, ONE)])) == ""


def test_a_shortcut_leaves_what_it_has_not_translated_to_the_ambassador() -> None:
    assert " drop" not in nft.replace(PLACES[1], table([tcp(1, ONE)]))


def test_a_shortcut_takes_tcp_at_its_syn_only() -> None:
    rules = [line for line in nft.replace(PLACES[1], table([tcp(1, ONE)])).splitlines() if " forwarding " in line]
    assert rules[1:3] == [
        "add rule ip dom0_shortcut_redis forwarding ip daddr { 10.0.0.9 } "
        "tcp flags & (fin | syn | rst | ack) == syn meta l4proto . th dport vmap @listeners",
        "add rule ip dom0_shortcut_redis forwarding ip daddr { 10.0.0.9 } "
        "meta l4proto udp meta l4proto . th dport vmap @listeners",
    ]


def test_shortcuts_are_found_among_the_tables_of_others() -> None:
    names = ["docker-dns", "dom0_ambassador", "dom0_shortcut_a1", "dom0_shortcut_a1_ending", "dom0_shortcut_b2"]
    tables = [{"metainfo": {}}, *({"table": {"family": "ip", "name": name}} for name in names)]
    assert nft.shortcuts(json.dumps({"nftables": tables})) == {"dom0_shortcut_a1", "dom0_shortcut_b2"}


@given(text=st.text(max_size=40), place=st.sampled_from(PLACES))
def test_no_text_from_outside_gets_into_a_rule(text: str, place: Any) -> None:
    hostile = Table((tcp(1, Target(text, 80)),))
    try:
        written = nft.replace(place, hostile)
    except ValueError:
        return
    assert all(OURS.fullmatch(line) for line in written.splitlines())


@pytest.mark.parametrize("address", ["fe80::1%x; flush ruleset", "10.0.0.1; flush ruleset", "010.0.0.1", ""])
def test_a_table_has_addresses_only(address: str) -> None:
    with pytest.raises(ValueError, match=r"address|appear|octet"):
        table([tcp(1, Target(address, 80))])


@pytest.mark.parametrize(
    "foreign",
    [
        {"set": {"name": "listeners"}},
        {"chain": {"name": "tcp_6379"}},
        {"chain": {"name": "tcp_99999"}},
        {"map": {"name": "listeners", "elem": [[{"concat": ["tcp", 1]}, {"goto": {"target": "refuse"}}]]}},
        {"map": {"name": "listeners", "elem": [["tcp", {"drop": None}]]}},
    ],
)
def test_what_we_would_not_have_written_is_not_read(foreign: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        nft.parse([json.dumps({"nftables": [foreign]})])


def test_two_families_that_differ_are_not_read() -> None:
    with pytest.raises(ValueError, match="families differ"):
        nft.parse([listed("10.0.0.1", 1), listed("fd00::1", 2)])
    assert nft.parse([listed("10.0.0.1", 1), listed("fd00::1", 1)]) == table([tcp(1, ONE, V6)])


def listed(address: str, generation: int) -> str:
    """What nft lists for 6379/tcp → port 80 of one address."""
    mark = {"mangle": {"key": {"ct": {"key": "mark"}}, "value": generation}}
    protocol = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}
    entries = [
        {"chain": {"name": "tcp_6379"}},
        {"map": {"name": "listeners", "elem": [[{"concat": ["tcp", 6379]}, {"goto": {"target": "tcp_6379"}}]]}},
        {"rule": {"chain": "tcp_6379", "expr": [mark]}},
        {"rule": {"chain": "tcp_6379", "expr": [protocol, {"dnat": {"addr": address, "port": 80}}]}},
    ]
    return json.dumps({"nftables": entries})
