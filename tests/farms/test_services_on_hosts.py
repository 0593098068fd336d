"""An ambassador leads to redis on other nodes of its farm: three hosts with Engines and whole machines on one network,
and the server of the farm on one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.names import AMBASSADOR_IMAGE
from dom0.testing import chain, machine_farm, redis
from dom0.testing.hosts import Host
from dom0.testing.machine_farm import hosts_on_a_switch

pytestmark = [pytest.mark.engine, pytest.mark.chain]
NETWORK = "10.9.8"
ADDRESSES = {name: f"{NETWORK}.{number}" for number, name in enumerate(("pc", "nas", "pi"), 1)}
ELSEWHERE = f"{NETWORK}.20"
FAR = "node:{}/service:redis:6379"
CONSUMER = f"""
name: pc
services:
  redis:
    image: dom0-ambassador
    x-dom0:
      ambassador:
        listen:
          "6379": {{to: ["node:nas/service:redis:6379"], plaintext: true, down: refuse}}
  echo:
    image: dom0-ambassador
    x-dom0:
      ambassador:
        listen:
          53/udp: {{to: ["{ADDRESSES["nas"]}:5300"], plaintext: true}}
  visitor:
    image: redis:test
    command: ["sleep", "100000"]
    stop_grace_period: 0s
x-dom0: {{rollout: {{monitor: 0s}}}}
"""
PROVIDER = """
name: NAME
services:
  redis:
    image: redis:test
    stop_grace_period: 1s
    ports: [PORTS]
x-dom0: {rollout: {monitor: 0s}}
"""

ECHO = ("UDP4-LISTEN:53,fork", "PIPE")


class Farm(machine_farm.Farm):
    """Its server runs on `pc`, whose visitor asks redis."""

    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        super().__init__(hosts, directory, f"listen: {ADDRESSES['pc']}:7701")
        self.pc = self.nodes["pc"]

    def provide(self, name: str, ports: str) -> None:
        self.nodes[name].write(PROVIDER.replace("NAME", name).replace("PORTS", ports))
        self.nodes[name].up()
        self.nodes[name].docker("exec", f"{name}-redis-1", "redis-cli", "set", "who", name)

    def answer(self) -> str:
        """Which redis answers the visitor; what goes wrong where none does."""
        command = ("exec", "pc-visitor-1", "timeout", "5", "redis-cli", "-h", "redis", "get", "who")
        said = self.pc.docker(*command, check=False)
        return (said.stdout + said.stderr).strip()

    def echo(self, port: int) -> None:
        """Have `nas` answer each datagram that comes to `port` with the same one, and those to no other port."""
        published = f"{ADDRESSES['nas']}:{port}:53/udp"
        nas = self.nodes["nas"]
        nas.docker("rm", "--force", "echo")
        nas.docker(*f"run -d --name echo -p {published} --entrypoint socat {AMBASSADOR_IMAGE}".split(), *ECHO)

    def echoed(self) -> str:
        """What somebody in the network of the visitor gets back."""
        argv = f"docker run --rm -i --network pc_default --entrypoint socat {AMBASSADOR_IMAGE} -t 2 - UDP4:echo:53"
        return self.pc.host.run(argv.split(), stdin=b"heard", check=False).stdout

    def targets(self) -> list[str]:
        shown = json.loads(self.pc.dom0("ambassador", "show", "redis", "--json").stdout)
        return list(shown["state"]["listeners"][0]["targets"])

    def until_answered(self, who: str, at: str) -> None:
        assert self.pc.until(lambda: self.targets() == [at] and self.answer() == who)

    def problems(self) -> dict[str, dict[str, Any]]:
        """Those of the ambassador, by their codes."""
        return {one["code"]: one for one in self.pc.status()["problems"] if one["subject"].startswith("redis ")}

    def until_problem(self, severity: str, why: str) -> None:
        def is_said() -> bool:
            one = self.problems().get("ambassador-node", {"title": ""})
            return why in one["title"] and one["severity"] == severity

        assert self.pc.until(is_said)


@pytest.fixture(scope="module")
def farm(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with hosts_on_a_switch({name: {} for name in ADDRESSES}, NETWORK) as hosts:
        for host in hosts.values():
            redis.provide(host)
        for name in ("pc", "nas"):
            chain.provide_ambassador(hosts[name])
        made = Farm(hosts, tmp_path_factory.mktemp("farm"))
        made.provide("nas", f'"{ADDRESSES["nas"]}:7000:6379"')
        made.provide("pi", '"7001:6379"')
        made.pc.write(CONSUMER)
        made.pc.up(wait=False)
        made.write("idle", "name: idle\n")
        made.enroll(dict.fromkeys(ADDRESSES, "idle"))
        yield made


def listening(host: Host) -> set[int]:
    """Ports of TCP at which others reach it."""
    rows = [
        line.split() for kind in ("tcp", "tcp6") for line in host.run(["cat", f"/proc/net/{kind}"]).stdout.splitlines()
    ]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


def test_a_visitor_reaches_redis_on_another_node_at_the_port_that_is_published_there(farm: Farm) -> None:
    farm.until_answered("nas", f"{ADDRESSES['nas']}:7000")
    assert farm.pc.until(lambda: not farm.problems())
    assert "nothing is encrypted on the way to another node" in farm.pc.dom0("ambassador", "show", "redis").stdout
    assert listening(farm.nodes["nas"].host) == {7000, 7702}, "nothing was opened for it"


def test_udp_goes_to_an_address_of_another_node_and_not_to_where_its_service_is(farm: Farm) -> None:
    farm.echo(5300)
    assert farm.pc.until(lambda: farm.echoed() == "heard")
    farm.echo(5301)
    assert farm.echoed() == ""
    far = farm.pc.dom0("ambassador", "rewire", "echo", "--to", "node:nas/service:echo:53", check=False)
    assert (far.code, "node:nas/service:echo:53: to another node goes TCP alone" in far.stderr) == (2, True)
    farm.pc.dom0("ambassador", "rewire", "echo", "--to", f"{ADDRESSES['nas']}:5301")
    assert farm.echoed() == "heard"


def test_it_follows_to_another_port_and_another_address(farm: Farm) -> None:
    before = farm.pc.lives("pc-redis-1", "pc-visitor-1")
    farm.provide("nas", '"7100:6379"')
    farm.until_answered("nas", f"{ADDRESSES['nas']}:7100")
    host = farm.nodes["nas"].host
    host.run(["ip", "address", "delete", f"{ADDRESSES['nas']}/24", "dev", "eth0"])
    host.run(["ip", "address", "add", f"{ELSEWHERE}/24", "dev", "eth0"])
    farm.until_answered("nas", f"{ELSEWHERE}:7100")
    assert farm.pc.lives("pc-redis-1", "pc-visitor-1") == before


def test_a_service_that_is_not_published_or_stopped_is_a_problem_with_its_reason(farm: Farm) -> None:
    farm.provide("nas", "")
    farm.until_problem("error", "nas publishes no fixed TCP port for it")
    assert "refused" in farm.answer()
    farm.provide("nas", '"7000:6379"')
    farm.until_answered("nas", f"{ELSEWHERE}:7000")
    farm.nodes["nas"].dom0("stop", "redis")
    farm.until_problem("error", "nothing of it is ready on nas")
    farm.nodes["nas"].dom0("start", "redis")
    farm.nodes["nas"].docker("exec", "nas-redis-1", "redis-cli", "set", "who", "nas")
    farm.until_answered("nas", f"{ELSEWHERE}:7000")
    assert farm.pc.until(lambda: not farm.problems())


def test_a_rewire_leads_to_another_node_and_back(farm: Farm) -> None:
    farm.pc.dom0("ambassador", "rewire", "redis", "--to", FAR.format("pi"))
    farm.until_answered("pi", f"{ADDRESSES['pi']}:7001")
    refused = farm.pc.dom0("ambassador", "rewire", "redis", "--to", FAR.format("nobody"), check=False)
    assert (refused.code, "nobody is no node of the farm" in refused.stderr) == (1, True)
    farm.pc.dom0("ambassador", "undo", "redis")
    farm.until_answered("nas", f"{ELSEWHERE}:7000")


def test_without_word_of_the_node_or_the_server_connections_go_on_to_where_it_was(farm: Farm) -> None:
    farm.nodes["nas"].docker("stop", "dom0")
    farm.until_problem("warning", "nas has said nothing of it")
    assert farm.answer() == "nas"
    farm.kill()
    farm.pc.docker("restart", "dom0")
    farm.pc.docker("restart", "pc-redis-1")
    farm.until_problem("warning", "the farm's server does not say")
    assert farm.answer() == "nas"
    assert farm.problems()["ambassador-node"]["severity"] == "warning", "and that is all"
    farm.nodes["nas"].docker("start", "dom0")
    farm.serve()
    assert farm.pc.until(lambda: not farm.problems())
    farm.until_answered("nas", f"{ELSEWHERE}:7000")
