"""What a network namespace and the rights in it allow: asked of the kernel, mended where possible, told where not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dom0.ambassador.capabilities import find_lacks
from dom0.ambassador.park import announce, park
from dom0.forward.interfaces import let_through
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.forward.table import table
from dom0.testing.routes import at, tcp
from dom0.testing.wires import Node, Wires

LACKS = """
import asyncio, sys
from dom0.forward import nft
from dom0.ambassador.capabilities import find_lacks
from dom0.forward.place import own
print(*(lack.name for lack in asyncio.run(find_lacks(own(sys.argv[1])))))
"""

CUT = """
import asyncio, sys
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
async def cut():
    plane = KernelPlane(own(sys.argv[1]))
    print(await plane.cut(await plane.flows()))
asyncio.run(cut())
"""

ALONE = """
import asyncio, subprocess, sys
from dom0.ambassador import park
from dom0.forward import interfaces, place
from dom0.forward.kernel import KernelPlane
from dom0.forward.table import Listener, Protocol, Route, Target, table

async def main():
    here, plane = place.own(), KernelPlane()
    interfaces.let_through(here)
    await plane.set(table([Route(Listener(Protocol.TCP, 6379), 1, (Target(sys.argv[1], 6379),))]))
    print("ready", flush=True)
    sys.stdin.readline()
    print(await plane.cut(await plane.flows()))
    subprocess.run(["conntrack", "-R", "-"], input=(await plane.dump()).encode(), check=True, capture_output=True)
    park.park(here)

asyncio.run(main())
"""


async def test_a_namespace_without_ipv6_forwards_ipv4(wires: Wires, plane: KernelPlane) -> None:
    wires.ambassador.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    place = own(wires.ambassador.namespace)
    let_through(place)
    assert "forward-ipv6" not in {lack.name for lack in await find_lacks(place)}
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    client = wires.consumer.connect(wires.ambassador.v4, 6379)
    assert client.ask() == "provider1:?"
    assert await plane.cut(await plane.flows()) == 1
    assert client.is_reset()
    park(place)
    announce(place)


async def test_packets_are_let_through_without_a_sysctl(wires: Wires, plane: KernelPlane) -> None:
    wires.ambassador.sysctl("net.ipv4.ip_forward", 0)
    place = own(wires.ambassador.namespace)
    assert [lack.name for lack in await find_lacks(place) if lack.essential] == ["forward-ipv4"]
    let_through(place)
    assert not any(lack.essential for lack in await find_lacks(place))
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    assert wires.consumer.connect(wires.ambassador.v4, 6379).ask() == "provider1:?"


async def test_what_is_missing_is_said_with_its_remedy(wires: Wires) -> None:
    wires.ambassador.sysctl("net.ipv6.conf.all.forwarding", 0)
    found = await find_lacks(own(wires.ambassador.namespace))
    assert [lack.name for lack in found] == ["forward-ipv6", "be-liberal"]
    assert all(lack.means and lack.remedy for lack in found)
    assert ruleset(wires.ambassador) == ""


def test_an_ambassador_needs_no_more_than_two_rights(wires: Wires) -> None:
    wires.ambassador.sysctl("net.ipv4.ip_forward", 0)
    rights = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all", "--no-new-privs"]
    inside = [*rights, sys.executable, "-c", ALONE, wires.providers[0].v4]
    argv = ["nsenter", f"--net={wires.ambassador.namespace}", "--", *inside]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ambassador:
        assert ambassador.stdout is not None
        assert ambassador.stdout.readline() == "ready\n"
        client = wires.consumer.connect(wires.ambassador.v4, 6379)
        assert client.ask() == "provider1:?"
        assert ambassador.communicate("\n", timeout=60)[0] == "1\n"
        assert client.is_reset()


async def test_without_a_right_the_rest_works_and_the_lack_is_told(wires: Wires, plane: KernelPlane) -> None:
    await plane.set(table([tcp(1, *at(wires.providers[0]))]))
    clients = [wires.consumer.connect(wires.ambassador.v4, 6379) for _ in range(2)]
    namespace = wires.ambassador.namespace
    assert without(["net_admin", "net_raw"], LACKS, namespace) == ["net-admin", "net-raw", "be-liberal"]
    assert without(["net_raw"], LACKS, namespace) == ["net-raw", "be-liberal"]
    assert without(["net_raw"], CUT, namespace) == ["2"]
    for client in clients:  # they speak, and the rules lead to where they were
        with pytest.raises(ConnectionResetError):
            client.ask()
    clients = [wires.consumer.connect(wires.ambassador.v4, 6379)]
    assert await plane.cut(await plane.flows()) == 1  # takes away what was left behind
    assert "ending" not in ruleset(wires.ambassador)


def without(rights: list[str], script: str, namespace: str) -> list[str]:
    """What `script` printed, run by a process that cannot have `rights`."""
    dropped = ",".join(f"-{right}" for right in rights)
    argv = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", sys.executable, "-c", script, namespace]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def ruleset(node: Node) -> str:
    return node.run("nft", "-s", "list", "ruleset")
