"""`make bench-farm`: five real machines as a farm, beside Docker Compose over ssh and Swarm mode; their part of
docs/benchmarks.md.

Each is a host with an Engine of its own. `--rounds N` makes it short; then nothing is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import agent
from bench.projects import IMAGE
from bench.report import REPORT, Row, at_most, table, write_section
from dom0.farms.directory import FarmDirectory
from dom0.farms.revisions import RoleState
from dom0.run import Output
from dom0.testing import owned
from dom0.testing.hosts import Host, switch_on, until
from dom0.testing.machine_farm import Farm, hosts_on_a_switch
from dom0.testing.machines import Machine

NETWORK = "10.9.4"
NAMES = ("one", "two", "three", "four", "five")
ADDRESSES = {name: f"{NETWORK}.{number}" for number, name in enumerate(NAMES, 1)}
SERVICES = 3  # of the role
LARGE = 32 << 20  # bytes of a file that nobody can compress
BACK_WITHIN = 60.0  # seconds after the power is back
SERVER, AGENT = 60.0, 5.0  # MB
PLACED = "label=com.docker.swarm.service.name=placed"
PROJECT = "services:\n" + "".join(
    f"  s{number}: {{image: {IMAGE}, init: true, command: sleep 1000000, environment: {{VERSION: 'VALUE'}}}}\n"
    for number in range(SERVICES)
)
ROLE = f"name: box\n{PROJECT}x-dom0: {{rollout: {{monitor: 0s}}}}\n"
SETTINGS = f"listen: {ADDRESSES['one']}:7701\nroles: {{web: {{soak: 0s, at_once: {len(NAMES)}}}}}"
HEAD = f"""`make bench-farm` writes this part too: {len(NAMES)} hosts side by side on this machine, each with a Docker
Engine of its own, are nodes of one role with {SERVICES} services (`busybox sleep`), of which each changes in every
round. The images are there.

- **a change**: from the start of `dom0 farm up` until every node has said that it is good, beside `docker compose up
  -d` on one machine after the other, by Debian's own ssh and sshd, in turns. dom0 builds the role's image, all nodes
  fetch it, one goes first, and the others together when it is good. `soak` and `monitor`, for which it would be looked
  at, are 0 s here, as Compose does not look; with the usual ones five nodes take about three minutes.
- **a power cut without the server**: the Engine of the server's machine is killed, and the farm's server, and with them
  the Swarm's one manager; all other machines lose their power and get it back. Counted is what does not run
  {BACK_WITHIN:.0f} s later, of the role, and of a service that Swarm had put on all nodes (`--mode global`), on the
  same Engines in the same minute.
- **bytes of a second node**: what the server sent it of a new file of {LARGE >> 20} MiB in the role, after another
  node had fetched that; the most of three.
- **memory** is the proportional set size: of the server's process after all changes; of agents, each right after a
  start, as a node less what it was with the same project before the machine joined; the median of all."""


class Ssh:
    """Debian's sshd on each host, and its client on the first one."""

    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        self._client = hosts["one"]
        self._config = directory / "ssh"
        for name in ("host", "login"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(key, check=True)
        strict = "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
        self._config.write_text(f"User root\nIdentityFile {directory / 'login'}\n{strict}")
        served = f"HostKey {directory / 'host'}\nAuthorizedKeysFile {directory / 'login.pub'}\n"
        (directory / "sshd").write_text(f"{served}StrictModes no\nUsePAM no\nPidFile none\n")
        for host in hosts.values():
            host.path("/run/sshd").mkdir(mode=0o755)
            host.popen(["/usr/sbin/sshd", "-D", "-f", str(directory / "sshd")])
        for name in hosts:
            until(lambda name=name: self.run(name, ["true"]).code == 0)  # type: ignore[misc]

    def run(self, name: str, argv: Sequence[str]) -> Output:
        return self._client.run(["ssh", "-F", str(self._config), ADDRESSES[name], shlex.join(argv)])


class Bench:
    def __init__(self, hosts: dict[str, Host], directory: Path) -> None:
        self.hosts = hosts
        self.plain = directory / "plain"
        self.plain.mkdir()
        self.ssh = Ssh(hosts, directory)
        self.before = [self._alone(host, directory) for host in hosts.values()]
        self.farm = Farm(hosts, directory, SETTINGS)
        self.farm.write("web", ROLE)
        self.farm.start()
        self.farm.enroll(dict.fromkeys(NAMES, "web"))
        self.version = 0

    def _alone(self, host: Host, directory: Path) -> float:
        """Memory of the agent of a machine that is in no farm."""
        machine = Machine(host, directory / f"{host.name}-alone")
        machine.write(ROLE)
        machine.up()
        return _memory_after_start(machine)

    def change(self) -> tuple[float, float]:
        """Seconds by the farm and by Compose, which take turns at who is first."""
        self.version += 1
        ways = [self._by_farm, self._by_compose]
        order = ways if self.version % 2 else ways[::-1]
        took = {way: way() for way in order}
        return took[self._by_farm], took[self._by_compose]

    def _by_farm(self) -> float:
        self.farm.write("web", ROLE.replace("VALUE", str(self.version)))
        begun = time.monotonic()
        revision = self.farm.up()
        until(lambda: self._are_good(revision))
        return time.monotonic() - begun

    def _by_compose(self) -> float:
        (self.plain / "compose.yaml").write_text("name: plain\n" + PROJECT.replace("VALUE", str(self.version)))
        begun = time.monotonic()
        for name in NAMES:
            self.ssh.run(name, ["docker", "compose", "--project-directory", str(self.plain), "up", "--detach"])
        return time.monotonic() - begun

    def _are_good(self, revision: int) -> bool:
        reports = FarmDirectory(self.farm.path).reports().values()
        return [(one.revision, one.state) for one in reports] == [(revision, RoleState.GOOD)] * len(NAMES)

    def second_nodes(self) -> float:
        """The most that the server sent one of them, in percent of what is new."""
        server, others = self.hosts["one"], NAMES[2:]
        self.farm.until_all_run()
        for name in others:
            self.farm.command("drain", name)
        (self.farm.path / "roles/web/large").write_bytes(os.urandom(LARGE))
        revision = self.farm.up()
        self.farm.until_said("two", revision, "good")
        server.run(["nft", "add", "table", "inet", "farm"])
        server.run(["nft", "add", "chain", "inet", "farm", "sent", "{ type filter hook output priority 0; }"])
        for name in others:
            rule = f"rule inet farm sent ip daddr {ADDRESSES[name]} tcp sport 7701 counter".split()
            server.run(["nft", "add", *rule])
        for name in others:
            self.farm.command("undrain", name)
        until(lambda: self._are_good(revision))
        said = server.run(["nft", "list", "chain", "inet", "farm", "sent"]).stdout
        return max(100 * int(sent) / LARGE for sent in re.findall(r"bytes (\d+)", said))

    def memory(self) -> tuple[float, list[float]]:
        """MB of the server, and what each agent has more than before it was a node's."""
        assert self.farm.server is not None
        server = agent.pss(Path(f"/proc/{self.farm.server.pid}"))
        after = [_memory_after_start(machine) for machine in self.farm.nodes.values()]
        return server, [more - less for more, less in zip(after, self.before, strict=True)]

    def power_cut(self) -> tuple[float, float]:
        """Percent of what the role and Swarm have put on the nodes that does not run afterwards."""
        manager, workers = self.hosts["one"], [self.hosts[name] for name in NAMES[1:]]
        manager.docker("swarm", "init", "--advertise-addr", ADDRESSES["one"])
        token = manager.docker("swarm", "join-token", "--quiet", "worker").stdout.strip()
        for host in workers:
            host.docker("swarm", "join", "--token", token, f"{ADDRESSES['one']}:2377")
        words = [
            "--mode",
            "global",
            "--name",
            "placed",
            "--no-resolve-image",
            "--restart-delay",
            "0s",
            IMAGE,
            "sleep",
            "100000",
        ]
        manager.docker("service", "create", "--detach", *words)
        until(lambda: all(_count(host, PLACED) == 1 for host in workers))
        manager.kill_engine()
        self.farm.kill()
        for host in workers:
            host.lose_power()
        switch_on(workers)
        time.sleep(BACK_WITHIN)
        ours = sum(_count(host, "name=^box-s") for host in workers)
        theirs = sum(_count(host, PLACED) for host in workers)
        return 100 - 100 * ours / (SERVICES * len(workers)), 100 - 100 * theirs / len(workers)


def _count(host: Host, which: str) -> int:
    """Of containers that run."""
    return len(host.docker("ps", "--quiet", "--filter", which).stdout.split())


def _memory_after_start(machine: Machine) -> float:
    machine.docker("restart", agent.ROOT)
    machine.until_good()
    time.sleep(5)
    return agent.memory(machine.host)


def measure(rounds: int) -> list[Row]:
    with (
        hosts_on_a_switch({name: {} for name in NAMES}, NETWORK) as hosts,
        tempfile.TemporaryDirectory(dir=owned.run_root()) as directory,
    ):
        bench = Bench(hosts, Path(directory))
        bench.change()  # all there is is new
        farm, compose = zip(*(bench.change() for _ in range(rounds)), strict=True)
        second = bench.second_nodes()
        server, agents = bench.memory()
        ours, theirs = bench.power_cut()
    down = f"{BACK_WITHIN:.0f} s after a power cut without the server: of what was placed, down"
    return [
        Row(f"a change on {len(NAMES)} nodes", farm, compose, "docker compose up -d over ssh"),
        Row(down, [ours], [theirs], "docker service", unit="%", goal="0 %", reached=ours == 0),
        at_most("bytes of a second node from the server", [second], 1, "%"),
        at_most("server, memory", [server], SERVER, "MB"),
        at_most("agent, memory, more than before it was a node's", agents, AGENT, "MB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.farm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    owned.sweep()
    rows = measure(rounds)
    print(table(rows))
    if rounds == parser.get_default("rounds"):
        facts = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
        when = f"Measured {time.strftime('%Y-%m-%d')}: {facts}; the median of {rounds} changes, all else once."
        write_section(REPORT, "A farm of five machines", f"{HEAD}\n\n{when}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
