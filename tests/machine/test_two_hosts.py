"""The example two-hosts as its README says, on two hosts: redis moves, and its visitor notices nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0.testing import chain
from dom0.testing.hosts import Host, Switch
from dom0.testing.machines import Machine

BIG, CLIENT = "10.1.0.2", "10.1.0.3"


@pytest.fixture
def switch(engines_possible: None) -> Iterator[Switch]:
    made = Switch()
    yield made
    made.stop()


@pytest.fixture
def hosts(fresh_host: Callable[..., Host], switch: Switch, tmp_path: Path) -> tuple[Machine, Machine]:
    """big-server and client-server, each with the directory that `dom0 init` made."""
    machines = []
    for name, address in (("big-server", BIG), ("client-server", CLIENT)):
        host = fresh_host(name=name, switch=switch, address=f"{address}/24", outside=True)
        chain.provide(host)
        chain.provide_ambassador(host)
        machine = Machine(host, tmp_path / name)
        machine.project.mkdir()
        machine.dom0("init", "--example", "two-hosts", "both")
        machines.append(Machine(host, machine.project / "both" / name))
    return machines[0], machines[1]


def visits(big: Machine, *options: str) -> int:
    said = big.docker("exec", "big-server-redis-1", "redis-cli", *options, "get", "visits").stdout.strip()
    return int(said or 0)


def with_shortcut(client: Machine) -> set[str]:
    (found,) = json.loads(client.dom0("ambassador", "ls", "--json").stdout)
    return {one["consumer"] for one in found["shortcuts"] if one.get("listeners")}


@pytest.mark.timeout(900)
def test_redis_moves_and_its_visitor_on_the_other_host_goes_on(hosts: tuple[Machine, Machine]) -> None:
    big, client = hosts
    big.dom0("up", "--wait", str(big.project), timeout=600)
    client.dom0("up", "--wait", str(client.project), timeout=600)
    big.until(lambda: visits(big) > 1)
    visitor = client.lives("client-server-visitor-1")
    # another redis, as it would be on a third host
    second = ("exec", "-d", "big-server-redis-1", "redis-server", "--port", "6380", "--protected-mode", "no")
    big.docker(*second)
    publish = (
        "run",
        "-d",
        "--name",
        "door",
        "--network",
        "big-server_default",
        "-p",
        "6380:6380",
        "--cap-add",
        "NET_ADMIN",
    )
    big.docker(*publish, "-e", "X_PORT_6380_TCP=tcp://redis:6380", "dom0-ambassador")
    said = client.dom0("ambassador", "rewire", "redis", "--to", f"{BIG}:6380", "--hold", "--json")
    assert json.loads(said.stdout)["receipt"]["after"] == [f"{BIG}:6380"]
    big.until(lambda: visits(big, "-p", "6380") > 1)
    client.dom0("ambassador", "undo", "redis")
    before = visits(big)
    big.until(lambda: visits(big) > before)
    assert client.lives("client-server-visitor-1") == visitor
    assert "no visit" not in client.output("client-server-visitor-1")
    client.until(lambda: with_shortcut(client) == {"client-server-visitor-1"})
