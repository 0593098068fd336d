"""Ends behind Docker's own address translation, on two real Engines: a cut reaches them through both hosts' conntrack.

The path is consumer, ambassador, its host, the published port of the other host, an ambassador there, provider.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from dom0.forward.dataplane import Flow
from dom0.forward.interfaces import let_through
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import Place, own
from dom0.forward.table import Target, table
from dom0.testing import busybox
from dom0.testing.hosts import Host, Switch
from dom0.testing.routes import tcp
from dom0.testing.wires import PATIENCE, Client, eventually

BIG, SMALL = "10.1.0.2", "10.1.0.3"
IDLE = ("sleep", "1000000")
ECHO = ("nc", "-ll", "-p", "6379", "-e", "cat")


@dataclass(frozen=True, slots=True)
class Way:
    near: Place
    far: Place
    consumer: Place
    listener: str
    provider: Host

    def dial(self) -> Client:
        made = self.consumer.open_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        made.settimeout(PATIENCE)
        made.connect((self.listener, 6379))
        client = Client(made)
        assert client.ask("hello") == "hello"
        return client

    def connections(self) -> list[str]:
        """The provider's."""
        listed = self.provider.docker("exec", "provider", "busybox", "netstat", "-tn").stdout.splitlines()
        return [line for line in listed if "ESTABLISHED" in line]


@pytest.fixture(scope="module")
def way(engines_possible: None) -> Iterator[Way]:
    switch, hosts = Switch(), list[Host]()
    try:
        for name, address in (("big", BIG), ("small", SMALL)):
            hosts.append(Host(name=name, switch=switch, address=f"{address}/24"))
        yield laid(*hosts)
    finally:
        for host in hosts:
            host.stop()
        switch.stop()


@pytest.mark.engine
@pytest.mark.parametrize("which", ["near", "far"])
async def test_a_cut_tells_ends_on_another_host(way: Way, which: str) -> None:
    with closing(way.dial()) as client, closing(way.dial()) as spared:
        plane, flow = await flow_of(way, client, which)
        assert await plane.cut([flow]) == 1
        assert client.is_reset()
        eventually(lambda: len(way.connections()) == 1)
        assert spared.ask("still there?") == "still there?"
    eventually(lambda: not way.connections())


def laid(big: Host, small: Host) -> Way:
    big.docker("run", "-d", "--name", "provider", busybox.IMAGE, *ECHO)
    big.docker("run", "-d", "--name", "far", "-p", "6379:6379", busybox.IMAGE, *IDLE)
    small.docker("run", "-d", "--name", "near", busybox.IMAGE, *IDLE)
    small.docker("run", "-d", "--name", "consumer", busybox.IMAGE, *IDLE)
    return Way(
        near=own(namespace(small, "near")),
        far=own(namespace(big, "far")),
        consumer=own(namespace(small, "consumer")),
        listener=address(small, "near"),
        provider=big,
    )


@pytest.fixture(autouse=True)
async def rules(way: Way) -> None:
    for place, target in ((way.near, BIG), (way.far, address(way.provider, "provider"))):
        let_through(place)
        await KernelPlane(place).set(table([tcp(1, Target(target, 6379))]))


async def flow_of(way: Way, client: Client, which: str) -> tuple[KernelPlane, Flow]:
    """Ports are kept all the way, by Docker's translation too unless they are taken."""
    plane = KernelPlane(way.near if which == "near" else way.far)
    (flow,) = [flow for flow in await plane.flows() if flow.client.port == client.port]
    return plane, flow


def namespace(host: Host, container: str) -> str:
    pid = host.docker("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    return str(host.path(f"/proc/{pid}/ns/net"))


def address(host: Host, container: str) -> str:
    wanted = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return host.docker("inspect", "--format", wanted, container).stdout.strip()
