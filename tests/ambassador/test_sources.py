"""Where to: an address, a name, or what the agent follows. What comes out is safe to print and to write into a rule."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dom0.ambassador.sources import Fixed, Followed, Named, Source, parse, shifted

PIECES = st.sampled_from(
    [
        "container",
        "service",
        "label",
        "node",
        "/service",
        ":",
        "::",
        "[",
        "]",
        "%",
        "=",
        ".",
        "-",
        "_",
        "1",
        "80",
        "99999",
        "10.0.0.1",
        "a",
        "é",
        "\n",
        ";",
    ]
)
TEXTS = st.one_of(st.text(max_size=20), st.lists(PIECES, max_size=8).map("".join))


def parsed(text: str, *, portless: bool = False) -> Source | str:
    """What is wrong with it, if something is."""
    try:
        return parse(text, portless=portless)
    except ValueError as error:
        return str(error)


@given(TEXTS, st.booleans())
@example("[::ffff:1.2.3.4]:80", False)
@example("container:a:", True)
def test_any_text_is_refused_in_printable_words_or_reads_back_as_what_it_became(text: str, portless: bool) -> None:
    source = parsed(text, portless=portless)
    if isinstance(source, str):
        assert source.isprintable()
        return
    assert parse(str(source), portless=portless) == source
    assert re.fullmatch(r"[\w./=:\[\]@+,-]*", str(source).partition("=")[0], re.ASCII)
    assert 0 <= source.port <= 65535


@given(st.ip_addresses(), st.integers(1, 65535))
@example(ipaddress.ip_address("::ffff:224.0.0.1"), 80)
def test_an_address_is_taken_unless_no_host_can_have_it(address: ipaddress.IPv4Address, port: int) -> None:
    text = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    source = parsed(text)
    if isinstance(source, str):
        meant = getattr(address, "ipv4_mapped", None) or address
        assert not meant.is_global or meant.is_multicast
        return
    assert isinstance(source, Fixed)
    assert source.address in (str(address), str(getattr(address, "ipv4_mapped", None)))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("redis", Named("redis", 0)),
        ("redis:", None),
        ("10.0.0.1", Fixed("10.0.0.1", 0)),
        ("[2001:db8::1]", Fixed("2001:db8::1", 0)),
        ("container:6379", Named("container", 6379)),
        ("container:redis", Followed("container", "redis", 0)),
        ("service:redis:1", Followed("service", "redis", 1)),
        ("label:role=db", Followed("label", "role=db", 0)),
        ("label:role:1", Followed("label", "role", 1)),
        ("Redis.Example.:1", Named("redis.example.", 1)),
        ("my_redis-1:1", Named("my_redis-1", 1)),
    ],
)
def test_the_port_may_be_left_out_where_a_rewire_knows_it(text: str, source: Source | None) -> None:
    if source is None:
        with pytest.raises(ValueError, match="is not a port"):
            parse(text, portless=True)
    else:
        assert parse(text, portless=True) == source


@pytest.mark.parametrize("kind", ["node", "plaintext:node"])
def test_a_service_of_another_node_is_known_with_its_port(kind: Literal["node", "plaintext:node"]) -> None:
    source = parse(f"{kind}:nas/service:my_redis-1.a:6379")
    assert source == Followed(kind, "nas/service:my_redis-1.a", 6379)
    assert source.key == str(source)
    assert shifted(source, 1) == parse(f"{kind}:nas/service:my_redis-1.a:6380")


@pytest.mark.parametrize(
    "text",
    [
        "node:nas",
        "node:nas:6379",
        "node:nas/service:redis",
        "node:nas/redis:6379",
        "node:NAS/service:redis:6379",
        "node:/service:redis:6379",
        "node:nas/service::6379",
        "node:nas/service:redis:6379:1",
        "node:nas/container:redis:6379",
        "node:-nas/service:redis:6379",
        "node:nas/service:re dis:6379",
        "node:nas/service:redis:",
        "node:nas/service:redis:0",
        "plaintext:node:nas",
        "plaintext:node:80",
        "plaintext:node:nas/service:redis",
    ],
)
def test_another_node_is_said_with_a_service_and_a_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not node:NODE/service:NAME:PORT|is not a port"):
        parse(text, portless=True)


def test_a_range_moves_the_port_and_not_past_the_last_one() -> None:
    assert shifted(parse("h:65530"), 5) == Named("h", 65535)
    with pytest.raises(ValueError, match="past port 65535"):
        shifted(parse("h:65530"), 6)
