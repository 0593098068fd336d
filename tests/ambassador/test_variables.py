"""Link variables: what Docker set and what people set by hand become listeners; what is hostile is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.ambassador.variables import links

# What `docker run --link redis_1:redis` set for a container with 6379/tcp, 7000-7002/tcp and 53/udp exposed.
DOCKER = {
    "HOSTNAME": "5f3c",
    "REDIS_NAME": "/ambassador/redis",
    "REDIS_PORT": "tcp://172.17.0.2:6379",
    "REDIS_PORT_53_UDP": "udp://172.17.0.2:53",
    "REDIS_PORT_53_UDP_ADDR": "172.17.0.2",
    "REDIS_PORT_53_UDP_PORT": "53",
    "REDIS_PORT_53_UDP_PROTO": "udp",
    "REDIS_PORT_6379_TCP": "tcp://172.17.0.2:6379",
    "REDIS_PORT_6379_TCP_ADDR": "172.17.0.2",
    "REDIS_PORT_6379_TCP_PORT": "6379",
    "REDIS_PORT_6379_TCP_PROTO": "tcp",
    "REDIS_PORT_7000_TCP_START": "tcp://172.17.0.2:7000",
    "REDIS_PORT_7000_TCP_ADDR": "172.17.0.2",
    "REDIS_PORT_7000_TCP_PROTO": "tcp",
    "REDIS_PORT_7000_TCP_PORT_START": "7000",
    "REDIS_PORT_7002_TCP_END": "tcp://172.17.0.2:7002",
    "REDIS_PORT_7002_TCP_PORT_END": "7002",
    "REDIS_PORT_7000_TCP": "tcp://172.17.0.2:7000",
    "REDIS_PORT_7001_TCP": "tcp://172.17.0.2:7001",
    "REDIS_PORT_7002_TCP": "tcp://172.17.0.2:7002",
    "REDIS_ENV_PASSWORD": "secret",
    "REDIS_ENV_MYSQL_PORT_3306_TCP": "tcp://evil:3306",
}

ACCEPTED = {
    "the original's own example": (
        {"REDIS_PORT_6379_TCP": "tcp://192.168.1.52:6379"},
        ["6379/tcp → 192.168.1.52:6379"],
    ),
    "everything that Docker sets": (
        DOCKER,
        [
            "53/udp → 172.17.0.2:53",
            "6379/tcp → 172.17.0.2:6379",
            "7000/tcp → 172.17.0.2:7000",
            "7001/tcp → 172.17.0.2:7001",
            "7002/tcp → 172.17.0.2:7002",
        ],
    ),
    "a translated port": ({"DB_PORT_5432_TCP": "tcp://db.example:6000"}, ["5432/tcp → db.example:6000"]),
    "an IPv6 address": ({"DB_PORT_5432_TCP": "tcp://[2001:DB8::0:1]:6000"}, ["5432/tcp → [2001:db8::1]:6000"]),
    "an IPv4 address in IPv6 clothes": ({"A_PORT_1_TCP": "tcp://[::ffff:10.0.0.1]:2"}, ["1/tcp → 10.0.0.1:2"]),
    "a range alone": (
        {"A_PORT_70_TCP_START": "tcp://h:80", "A_PORT_72_TCP_END": "tcp://h:82"},
        ["70/tcp → h:80", "71/tcp → h:81", "72/tcp → h:82"],
    ),
    "a range whose end has the name of its start": (
        {"A_PORT_70_UDP_START": "udp://h:80", "A_PORT_70_UDP_END": "udp://h:81"},
        ["70/udp → h:80", "71/udp → h:81"],
    ),
    "one port of a range that goes elsewhere": (
        {"A_PORT_70_TCP_START": "tcp://h:80", "A_PORT_71_TCP_END": "tcp://h:81", "A_PORT_71_TCP": "tcp://other:1"},
        ["70/tcp → h:80", "71/tcp → other:1"],
    ),
    "two ranges of one alias": (
        {
            "A_PORT_10_TCP_START": "tcp://h:10",
            "A_PORT_11_TCP_END": "tcp://h:11",
            "A_PORT_20_TCP_START": "tcp://h:20",
            "A_PORT_21_TCP_END": "tcp://h:21",
        },
        ["10/tcp → h:10", "11/tcp → h:11", "20/tcp → h:20", "21/tcp → h:21"],
    ),
    "the pieces alone": (
        {"A_PORT_80_TCP_ADDR": "10.0.0.1", "A_PORT_80_TCP_PORT": "8080", "A_PORT_80_TCP_PROTO": "tcp"},
        ["80/tcp → 10.0.0.1:8080"],
    ),
    "an IPv6 address in pieces": ({"A_PORT_80_TCP_ADDR": "2001:db8::1"}, ["80/tcp → [2001:db8::1]:80"]),
    "the whole one before stale pieces": (
        {"A_PORT_80_TCP": "tcp://new:80", "A_PORT_80_TCP_ADDR": "old"},
        ["80/tcp → new:80"],
    ),
    "a default port alone": ({"A_PORT": "udp://h:53"}, ["53/udp → h:53"]),
    "a default port beside a numbered one": ({"A_PORT": "tcp://h:1", "A_PORT_2_TCP": "tcp://h:1"}, ["2/tcp → h:1"]),
    "a variable of another program": ({"SERVER_PORT": "8080", "X_PORT": "http://h:1/", "PORT": "tcp://h:1"}, []),
    "two aliases of one container": ({"A_PORT_80_TCP": "tcp://h:80", "B_PORT_80_TCP": "tcp://h:80"}, ["80/tcp → h:80"]),
    "TCP and UDP on one port": (
        {"A_PORT_53_TCP": "tcp://h:53", "A_PORT_53_UDP": "udp://h:53"},
        ["53/tcp → h:53", "53/udp → h:53"],
    ),
    "the environment of a link": ({"A_ENV_B_PORT_80_TCP": "tcp://h:80", "A_ENV_PORT": "tcp://h:80"}, []),
    "SCTP": ({"A_PORT_80_SCTP": "sctp://h:80"}, []),
}

REFUSED = {
    "no port in the value": ("A_PORT_80_TCP", "tcp://h", "names no port"),
    "a port that is none": ("A_PORT_80_TCP", "tcp://h:99999", "'99999' is not a port"),
    "a port in other digits": ("A_PORT_80_TCP", "tcp://h:٨٠", "is not a port"),
    "a listener that is none": ("A_PORT_0_TCP", "tcp://h:80", "'0' is not a port"),
    "a listener out of range": ("A_PORT_65536_TCP", "tcp://h:80", "'65536' is not a port"),
    "another protocol": ("A_PORT_80_TCP", "udp://h:80", "is not TCP"),
    "no URL": ("A_PORT_80_TCP", "h:80", "is not of the form tcp://HOST:PORT"),
    "a path": ("A_PORT_80_TCP", "tcp://h:80/", "is not a port"),
    "nothing": ("A_PORT_80_TCP", "", "is not of the form"),
    "rules in the name": ("A_PORT_80_TCP", "tcp://h; flush ruleset #:80", "neither an address nor a name"),
    "a line break": ("A_PORT_80_TCP", "tcp://h\nadd rule:80", "neither an address nor a name"),
    "an IPv6 address without brackets": ("A_PORT_80_TCP", "tcp://2001:db8::1:80", "stands in brackets"),
    "a zone": ("A_PORT_80_TCP", "tcp://[fe80::1%eth0]:80", "link-local"),
    "loopback": ("A_PORT_80_TCP", "tcp://127.0.0.1:80", "a loop"),
    "IPv6 loopback": ("A_PORT_80_TCP", "tcp://[::1]:80", "a loop"),
    "loopback in IPv6 clothes": ("A_PORT_80_TCP", "tcp://[::ffff:127.0.0.1]:80", "a loop"),
    "no host's address": ("A_PORT_80_TCP", "tcp://0.0.0.0:80", "not the address of a host"),
    "a group's address": ("A_PORT_80_UDP", "udp://224.0.0.1:80", "not the address of a host"),
    "an address with too much": ("A_PORT_80_TCP", "tcp://10.0.0.256:80", "is not an IPv4 address"),
    "a short address": ("A_PORT_80_TCP", "tcp://127.1:80", "is not an IPv4 address"),
    "a hexadecimal address": ("A_PORT_80_TCP", "tcp://0x7f000001:80", "is not an IPv4 address"),
    "a default port's host": ("A_PORT", "tcp://-h:80", "neither an address nor a name"),
    "what the agent follows": ("A_PORT_80_TCP", "tcp://container:redis:6379", "holds HOST:PORT"),
    "another node": ("A_PORT_80_TCP", "tcp://node:nas/service:redis:6379", "holds HOST:PORT"),
    "pieces of another protocol": ("A_PORT_80_TCP_ADDR", "h b", "neither an address nor a name"),
    "a start without an end": ("A_PORT_80_TCP_START", "tcp://h:80", "no _END"),
    "an end without a start": ("A_PORT_80_TCP_END", "tcp://h:80", "no _START"),
}


@pytest.mark.parametrize(("given_", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_variables_become_listeners(given_: dict[str, str], expected: list[str]) -> None:
    found = links(given_)
    assert found.flaws == []
    assert sorted(f"{link.listener} → {link.source}" for link in found.found) == sorted(expected)


@pytest.mark.parametrize(("name", "value", "why"), REFUSED.values(), ids=REFUSED)
def test_a_hostile_variable_is_refused_by_name_with_the_reason(name: str, value: str, why: str) -> None:
    (flaw,) = links({name: value}).flaws
    assert flaw.steps == (name,)
    assert why in flaw.what
    assert flaw.what.isprintable()


def test_two_aliases_that_want_one_port_are_both_named() -> None:
    (flaw,) = links({"A_PORT_80_TCP": "tcp://a:80", "B_PORT_80_TCP": "tcp://b:80"}).flaws
    assert flaw.steps == ("B_PORT_80_TCP",)
    assert "A_PORT_80_TCP" in flaw.what


@pytest.mark.parametrize(
    ("end", "why"),
    [("tcp://other:81", "two hosts"), ("tcp://h:85", "not as many ports"), ("tcp://h:79", "not as many ports")],
)
def test_a_range_whose_ends_do_not_fit_is_refused(end: str, why: str) -> None:
    (flaw,) = links({"A_PORT_80_TCP_START": "tcp://h:80", "A_PORT_81_TCP_END": end}).flaws
    assert why in flaw.what


def test_a_range_of_all_ports_is_refused() -> None:
    flaws = links({"A_PORT_1_TCP_START": "tcp://h:1", "A_PORT_65535_TCP_END": "tcp://h:65535"}).flaws
    assert "too long" in flaws[0].what


def test_what_looks_like_a_link_and_is_not_forwarded_is_told() -> None:
    assert links(DOCKER).ignored == ["REDIS_ENV_MYSQL_PORT_3306_TCP"]


NAMES = st.from_regex(r"[A-C]_PORT(_[0-9]{1,6}_(TCP|UDP|SCTP)(_START|_END|_ADDR|_PORT|_PROTO)?)?", fullmatch=True)
VALUES = st.one_of(
    st.from_regex(r"(tcp|udp)://(h|10\.0\.0\.1|\[::2\]):[0-9]{1,5}", fullmatch=True),
    st.text(max_size=12),
    st.just("tcp"),
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_whatever_the_variables_say_each_port_has_one_target_or_a_flaw(environ: dict[str, str]) -> None:
    found = links(environ)
    listeners = [link.listener for link in found.found]
    assert len(listeners) == len(set(listeners))
    assert all(flaw.steps[0] in environ or flaw.steps[0].rpartition("_")[0] for flaw in found.flaws)
    assert all(1 <= link.source.port <= 65535 for link in found.found)
