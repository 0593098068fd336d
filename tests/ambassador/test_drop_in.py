"""The image on real Engines: in the place of the old one with the same command lines, on one host and on two."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from dom0.testing import chain, redis
from dom0.testing.hosts import Host, Switch
from dom0.testing.wires import eventually

IMAGE = "dom0-ambassador"
BIG, CLIENT = "10.1.0.2", "10.1.0.3"
KERNEL = ("--cap-add", "NET_ADMIN")
MODES = pytest.mark.parametrize("mode", [(), KERNEL], ids=["relay", "kernel"])


def prepared(host: Host) -> Host:
    chain.provide_ambassador(host)
    redis.provide(host)
    return host


@pytest.fixture(scope="module")
def hosts(engines_possible: None) -> Iterator[tuple[Host, Host]]:
    """The two of the example, `big-server` and `client-server`."""
    switch = Switch()
    made: list[Host] = []
    try:
        for name, address in (("big-server", BIG), ("client-server", CLIENT)):
            made.append(prepared(Host(name=name, switch=switch, address=f"{address}/24")))
        yield made[0], made[1]
    finally:
        for host in made:
            host.stop()
        switch.stop()


@pytest.fixture
def big(hosts: tuple[Host, Host]) -> Iterator[Host]:
    yield from cleaned(hosts[0])


@pytest.fixture
def client(hosts: tuple[Host, Host]) -> Iterator[Host]:
    yield from cleaned(hosts[1])


def cleaned(host: Host) -> Iterator[Host]:
    yield host
    names = host.docker("ps", "--all", "--quiet").stdout.split()
    if names:
        host.docker("rm", "--force", "--volumes", *names)
    host.docker("network", "prune", "--force")


def healthy(host: Host, name: str) -> None:
    wanted = ("inspect", "--format", "{{.State.Health.Status}}", name)
    eventually(lambda: host.docker(*wanted).stdout.strip() == "healthy", f"health of {name}")


def answer(host: Host, *command: str) -> str:
    """What a command prints that may come before the ambassador has read its environment."""

    def said() -> str:
        return host.docker(*command, check=False).stdout.strip()

    return eventually(said, " ".join(command))


PING = (redis.IMAGE, "redis-cli", "-h", "redis", "ping")


@MODES
def test_the_two_host_example_works_as_it_was_written(big: Host, client: Host, mode: tuple[str, ...]) -> None:
    big.docker("run", "-d", "--name", "redis", redis.IMAGE)
    big.docker("run", "-d", "--link", "redis:redis", "--name", "redis_ambassador", "-p", "6379:6379", *mode, IMAGE)
    given = f"REDIS_PORT_6379_TCP=tcp://{BIG}:6379"
    client.docker("run", "-d", "--name", "redis_ambassador", "--expose", "6379", "-e", given, *mode, IMAGE)
    assert answer(client, "run", "--rm", "--link", "redis_ambassador:redis", *PING) == "PONG"


@MODES
def test_it_works_where_the_engine_makes_no_link_variables(big: Host, client: Host, mode: tuple[str, ...]) -> None:
    """As Engines from 29 on: names on a network of one's own, and what a link said is said with -e."""
    for host in (big, client):
        host.docker("network", "create", "backend")
    big.docker("run", "-d", "--net", "backend", "--name", "redis", redis.IMAGE)
    given = ("-e", "REDIS_PORT_6379_TCP=tcp://redis:6379")
    big.docker("run", "-d", "--net", "backend", "--name", "redis_ambassador", "-p", "6379:6379", *given, *mode, IMAGE)
    given = ("-e", f"REDIS_PORT_6379_TCP=tcp://{BIG}:6379")
    client.docker("run", "-d", "--net", "backend", "--network-alias", "redis", *given, *mode, IMAGE)
    assert answer(client, "run", "--rm", "--net", "backend", *PING) == "PONG"


def provide(host: Host, network: str, name: str, *addresses: str) -> None:
    """Answers its name and port on each socat address: `TCP6-LISTEN:7000`."""
    script = " & ".join(f"socat {address},fork,reuseaddr SYSTEM:'echo {name}'" for address in addresses)
    host.docker("run", "-d", "--net", network, "--name", name, "--entrypoint", "sh", IMAGE, "-c", f"{script} & wait")


def asked(host: Host, consumer: str, address: str) -> str:
    """Who answers at a socat address."""
    return answer(host, "exec", consumer, "sh", "-c", f"echo | socat -t1 -T1 - {address}")


@MODES
def test_many_aliases_ports_protocols_ranges_and_families(big: Host, mode: tuple[str, ...]) -> None:
    big.docker("network", "create", "--ipv6", "--subnet", "fd00:7::/64", "--subnet", "10.7.0.0/24", "both")
    provide(big, "both", "web", "TCP6-LISTEN:80,ipv6only=0", "UDP6-LISTEN:80,ipv6only=0")
    provide(big, "both", "range", *(f"TCP4-LISTEN:{port}" for port in (7000, 7001, 7002)))
    forwarding = ("--sysctl", "net.ipv6.conf.all.forwarding=1") if mode else ()
    variables = [
        "WEB_PORT_8080_TCP=tcp://web:80",
        "NAMES_PORT_53_UDP=udp://web:80",
        "RANGE_PORT_9000_TCP_START=tcp://range:7000",
        "RANGE_PORT_9000_TCP_END=tcp://range:7002",
        "RANGE_PORT_9000_TCP_PORT_START=9000",
        "RANGE_PORT_9000_TCP_PORT_END=9002",
    ]
    given = [word for variable in variables for word in ("-e", variable)]
    big.docker("run", "-d", "--net", "both", "--name", "amb", *given, *forwarding, *mode, IMAGE)
    big.docker("run", "-d", "--net", "both", "--name", "consumer", "--entrypoint", "sleep", IMAGE, "infinity")
    healthy(big, "amb")
    assert asked(big, "consumer", "TCP4:amb:8080") == "web"
    assert asked(big, "consumer", "TCP6:amb:8080") == "web"
    assert asked(big, "consumer", "UDP4:amb:53") == "web"
    assert asked(big, "consumer", "UDP6:amb:53") == "web"
    assert [asked(big, "consumer", f"TCP4:amb:{port}") for port in (9000, 9001, 9002)] == ["range"] * 3


def engines_rules(host: Host) -> str:
    """What the Engine has put into the ambassador's namespace, without what has been counted."""
    listed = host.docker("exec", "amb", "nft", "list", "table", "ip", "nat").stdout
    return re.sub(r"packets \d+ bytes \d+", "", listed)


def test_the_engines_own_names_are_found_before_and_after_a_rewire(big: Host) -> None:
    big.docker("network", "create", "own")
    for name in ("one", "two"):
        provide(big, "own", name, "TCP4-LISTEN:80")
    big.docker("run", "-d", "--net", "own", "--name", "amb", "-e", "WEB_PORT_80_TCP=tcp://one:80", *KERNEL, IMAGE)
    big.docker("run", "-d", "--net", "own", "--name", "consumer", "--entrypoint", "sleep", IMAGE, "infinity")
    healthy(big, "amb")
    rules = engines_rules(big)
    assert "DOCKER_OUTPUT" in rules
    assert asked(big, "consumer", "TCP4:amb:80") == "one"
    big.docker("exec", "amb", "dom0-ambassador", "rewire", "--to", "two:80")
    assert asked(big, "consumer", "TCP4:amb:80") == "two"
    assert big.docker("exec", "amb", "nslookup", "one").stdout.count("Address") >= 2
    assert engines_rules(big) == rules


def test_without_net_admin_it_says_so_and_what_to_do(big: Host) -> None:
    big.docker("run", "-d", "--name", "amb", "-e", "X_PORT_80_TCP=tcp://10.9.9.9:80", IMAGE)
    healthy(big, "amb")
    shown = big.docker("exec", "amb", "dom0-ambassador", "show").stdout
    assert "relay" in shown
    assert "--cap-add NET_ADMIN" in shown


def test_in_the_network_of_its_host_it_sets_no_rules(big: Host) -> None:
    """They would be for everything that the host forwards."""
    big.docker("run", "-d", "--name", "redis", "-p", "7777:6379", redis.IMAGE)
    given = ("-e", f"REDIS_PORT_6399_TCP=tcp://{BIG}:7777", "--network", "host", *KERNEL)
    big.docker("run", "-d", "--name", "amb", *given, IMAGE)
    healthy(big, "amb")
    assert "without --network host" in big.docker("exec", "amb", "dom0-ambassador", "show").stdout
    assert "dom0" not in big.run(["nft", "list", "tables"]).stdout
    asked_redis = ("run", "--rm", "--network", "host", redis.IMAGE, "redis-cli", "-h", BIG, "-p", "6399", "ping")
    assert answer(big, *asked_redis) == "PONG"


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("X_PORT_80_TCP=tcp://10.9.9.9:0", "X_PORT_80_TCP"),
        ("X_PORT_80_TCP=tcp://$(reboot):80", "X_PORT_80_TCP"),
        ("DOM0_AMBASSADOR={", "DOM0_AMBASSADOR"),
        ("NOTHING=1", "no listener"),
    ],
)
def test_a_declaration_that_makes_no_sense_ends_it_with_the_reason(big: Host, variable: str, reason: str) -> None:
    ended = big.docker("run", "--rm", "-e", variable, *KERNEL, IMAGE, check=False)
    assert ended.code in (2, 3)
    assert reason in ended.stderr


def test_a_root_that_is_read_only_is_enough_with_room_for_its_state(big: Host) -> None:
    given = ("--read-only", "-e", "X_PORT_80_TCP=tcp://10.9.9.9:80", *KERNEL)
    refused = big.docker("run", "--rm", *given, IMAGE, check=False)
    assert refused.code == 1
    assert "/var/lib/dom0-ambassador cannot be written to" in refused.stderr
    big.docker("run", "-d", "--name", "amb", "--tmpfs", "/run", "-v", "/var/lib/dom0-ambassador", *given, IMAGE)
    healthy(big, "amb")


def test_the_command_of_the_image_is_its_argument(big: Host) -> None:
    assert big.docker("run", "--rm", IMAGE, "version").stdout.startswith("dom0-ambassador ")
