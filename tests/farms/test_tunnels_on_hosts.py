"""An ambassador leads to redis on another node of its farm by the tunnel between both: two hosts with Engines and whole
machines, and Debian's WireGuard in user space in the place of the kernel's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.farms.tunnel import INTERFACE, NETWORK, TABLE
from dom0.farms.wireguard import KEY
from dom0.forward.place import own
from dom0.testing import chain, machine_farm, redis, wireguard
from dom0.testing.hosts import Host
from dom0.testing.machine_farm import hosts_on_a_switch
from dom0.testing.machines import Machine
from dom0.testing.wireguard import Capture

pytestmark = [
    pytest.mark.engine,
    pytest.mark.chain,
    pytest.mark.skipif(bool(wireguard.missing()), reason=wireguard.missing()),
]
NETWORK_OF_HOSTS = "10.9.7"
PC, NAS = f"{NETWORK_OF_HOSTS}.1", f"{NETWORK_OF_HOSTS}.2"
SECRET = "nobody-reads-this"
VISITOR = """
  visitor:
    image: redis:test
    command: ["sleep", "100000"]
    stop_grace_period: 0s
x-dom0: {rollout: {monitor: 0s}}
"""
WITHOUT = f"""
name: pc
services:{VISITOR}"""
CONSUMER = f"""
name: pc
services:
  redis:
    image: dom0-ambassador
    x-dom0:
      ambassador:
        listen:
          "6379": {{to: ["node:nas/service:redis:6379"], down: refuse}}{VISITOR}"""
PROVIDER = """
name: nas
services:
  redis:
    image: redis:test
    stop_grace_period: 1s
    ports: ["127.0.0.1:7000:6379"]
x-dom0: {rollout: {monitor: 0s}}
"""
# Where `wg` in the root container finds it: of both /run, dom0 has /run/dom0.
_WIREGUARD = f"""
mkdir -p /run/dom0/wireguard && ln -sfn dom0/wireguard /run/wireguard && exec wireguard-go --foreground {INTERFACE}
"""


class Farm(machine_farm.Farm):
    """Its server runs on `pc`, whose visitor asks redis."""

    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        super().__init__(hosts, directory, f"listen: {PC}:7701")
        self.pc, self.nas = self.nodes["pc"], self.nodes["nas"]

    def begin_wireguard(self, machine: Machine) -> None:
        """As if its kernel had it."""
        machine.host.popen(["sh", "-c", _WIREGUARD], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.show_wireguard(machine)

    def show_wireguard(self, machine: Machine) -> None:
        """To its root container, each one anew."""
        machine.docker("exec", "dom0", "ln", "-sfn", "/run/dom0/wireguard", "/run/wireguard")

    def visit(self, *command: str) -> str:
        """What redis answers the visitor; what goes wrong where none does."""
        argv = ("exec", "pc-visitor-1", "timeout", "5", "redis-cli", "-h", "redis", *command)
        said = self.pc.docker(*argv, check=False)
        return (said.stdout + said.stderr).strip()

    def echoed(self, at: str) -> str:
        """What comes back to `pc` when it sends a datagram there."""
        return self.pc.host.run(["socat", "-t", "2", "-", f"UDP4:{at}"], stdin=b"heard", check=False).stdout

    def problems(self) -> list[dict[str, Any]]:
        return [one for one in self.pc.status()["problems"] if one["subject"].startswith("redis ")]

    def interfaces(self, machine: Machine) -> str:
        return machine.host.run(["ip", "-brief", "-4", "address"]).stdout


@pytest.fixture(scope="module")
def farm(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with hosts_on_a_switch({"pc": {}, "nas": {}}, NETWORK_OF_HOSTS) as hosts:
        for host in hosts.values():
            redis.provide(host)
        chain.provide_ambassador(hosts["pc"])
        made = Farm(hosts, tmp_path_factory.mktemp("farm"))
        made.nas.write(PROVIDER)
        made.nas.up()
        made.pc.write(CONSUMER)
        made.pc.up(wait=False)
        made.write("idle", "name: idle\n")
        made.enroll({"pc": "idle", "nas": "idle"})
        yield made


def test_where_a_kernel_has_no_wireguard_it_is_said_and_nothing_goes_in_plaintext(farm: Farm) -> None:
    def said(name: str) -> bool:
        why = f"{name} has no tunnel: its kernel has no WireGuard (the module wireguard)"
        return any(one["title"].startswith(why) and one["severity"] == "error" for one in farm.problems())

    if farm.pc.host.run(["ip", "link", "add", "probe", "type", "wireguard"], check=False).code == 0:
        pytest.skip("this kernel has it")
    assert farm.pc.until(lambda: said("pc"))
    assert "refused" in farm.visit("ping")
    farm.begin_wireguard(farm.pc)
    assert farm.pc.until(lambda: said("nas"))
    assert "refused" in farm.visit("ping")


def test_a_visitor_reaches_redis_on_another_node_and_nobody_on_the_network_reads_it(farm: Farm) -> None:
    farm.begin_wireguard(farm.nas)
    assert farm.pc.until(lambda: farm.visit("ping") == "PONG")
    assert farm.pc.until(lambda: not farm.problems())
    capture = Capture(own(farm.pc.host.network).call)
    assert farm.visit("set", "word", SECRET) == "OK"
    assert farm.visit("get", "word") == SECRET
    assert len(farm.visit("eval", "return string.rep('x', 200000)", "0")) == 200000
    assert SECRET.encode() not in (seen := capture.take())
    assert len(seen) > 200
    farm.pc.host.run(["bash", "-c", f"echo {SECRET} > /dev/udp/{NAS}/9"])
    assert SECRET.encode() in capture.take(), "it would be seen"
    capture.close()
    shown = json.loads(farm.pc.dom0("ambassador", "show", "redis", "--json").stdout)
    (target,) = shown["state"]["listeners"][0]["targets"]
    assert target.endswith(":7000")
    assert target.removesuffix(":7000") in farm.interfaces(farm.nas)
    refused = farm.pc.host.run(["bash", "-c", f"echo > /dev/tcp/{NAS}/7000"], check=False)
    assert "refused" in refused.stderr, "on the network it is published for nobody"
    farm.nas.host.popen(["socat", "UDP4-LISTEN:7000,fork", "PIPE"])
    assert farm.pc.until(lambda: farm.echoed(f"{NAS}:7000") == "heard")
    assert farm.echoed(target) == "", "by the tunnel goes TCP alone"
    for machine in (farm.pc, farm.nas):
        assert (machine.state / KEY).stat().st_mode & 0o777 == 0o600
    assert "nothing is encrypted" not in farm.pc.dom0("ambassador", "show", "redis").stdout


def test_connections_outlive_agents_and_the_server(farm: Farm) -> None:
    argv = ["docker", "exec", "pc-visitor-1", "redis-cli", "-h", "redis", "blpop", "queue", "0"]
    waiting = farm.pc.host.popen(argv, stdout=subprocess.PIPE)
    assert farm.pc.until(lambda: "cmd=blpop" in farm.visit("client", "list"))
    farm.kill()
    for machine in (farm.pc, farm.nas):
        machine.docker("kill", "dom0")
        machine.docker("start", "dom0")
        assert machine.until(machine.status)
    assert farm.visit("set", "word", "other") == "OK"
    farm.serve()
    assert farm.pc.until(lambda: not farm.problems())
    assert farm.visit("rpush", "queue", "came") == "1"
    assert b"came" in waiting.communicate(timeout=60)[0]


def test_another_container_is_led_to_and_the_last_that_wants_something_takes_the_tunnel_away(farm: Farm) -> None:
    farm.nas.docker("rm", "--force", "nas-redis-1")
    assert farm.nas.until(lambda: farm.visit("get", "word") == "")
    assert farm.visit("set", "word", "new") == "OK"
    farm.pc.write(WITHOUT)
    farm.pc.up()
    farm.show_wireguard(farm.pc)
    for machine in (farm.pc, farm.nas):
        assert machine.until(lambda: TABLE not in machine.host.run(["nft", "list", "tables"]).stdout)  # noqa: B023
        assert INTERFACE not in farm.interfaces(machine)
        assert str(NETWORK.network_address) not in machine.host.run(["ip", "route"]).stdout


def test_a_node_that_is_removed_loses_its_tunnel_at_once(farm: Farm) -> None:
    farm.pc.write(CONSUMER)
    farm.pc.up(wait=False)
    for machine in (farm.pc, farm.nas):
        farm.begin_wireguard(machine)
    assert farm.pc.until(lambda: farm.visit("get", "word") == "new")
    farm.command("remove", "nas")
    assert farm.nas.until(lambda: TABLE not in farm.nas.host.run(["nft", "list", "tables"]).stdout)
    assert INTERFACE not in farm.interfaces(farm.nas)
    titles = ["nas is no node of the farm", "no target accepts a connection; new ones are refused"]
    assert farm.pc.until(lambda: [one["title"] for one in farm.problems()] == titles)
    assert farm.pc.until(lambda: "refused" in farm.visit("get", "word"))
