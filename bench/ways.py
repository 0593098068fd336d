"""The ways from a consumer to a provider that are compared: nothing between, ours, and what people take instead."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dom0.forward.kernel import KernelPlane
from dom0.forward.place import consumer
from dom0.forward.table import Listener, Protocol, Route, Target, table
from dom0.testing.control_plane import ControlPlane
from dom0.testing.wires import Node, Wires

Way = Callable[[Wires, Mapping[int, int]], Iterator["Running"]]
QUIET = {"DOM0_LOG": "error"}
FILES = 16_384  # open ones of a process: 2,000 connections have two ends, and proxies want some more


class Running:
    """A way that stands. `address` is what the consumer connects to, `pids` are the processes that take part."""

    def __init__(self, address: str, processes: Sequence[subprocess.Popen[bytes]] = (), pids: Sequence[int] = ()):
        self.address = address
        self._processes = processes
        self._pids = pids

    def memory(self) -> float:
        """Proportional set size of its processes and their children, in MB."""
        roots = [process.pid for process in self._processes] + list(self._pids)
        return sum(_pss(pid) for pid in _with_children(roots)) / 1024


def spawn(node: Node, *argv: str, directory: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `argv` in the node's namespace; it ends with us by whatever death."""
    command = ["setpriv", "--pdeathsig=KILL", "nsenter", f"--net={node.namespace}", "--", *argv]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# What the Engine puts into the network namespace of every container on a network of its own, so that its name server
# is found (libnetwork, resolver_unix.go). With it the kernel tracks all connections there, whoever forwards them.
ENGINES_RULES = """\
table ip nat {
    chain DOCKER_OUTPUT {
        ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40001
        ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40002
    }
    chain OUTPUT { type nat hook output priority -100; ip daddr 127.0.0.11 jump DOCKER_OUTPUT; }
    chain DOCKER_POSTROUTING {
        ip saddr 127.0.0.11 tcp sport 40001 snat to :53
        ip saddr 127.0.0.11 udp sport 40002 snat to :53
    }
    chain POSTROUTING { type nat hook postrouting priority 100; ip daddr 127.0.0.11 jump DOCKER_POSTROUTING; }
}
"""


def settle(wires: Wires) -> None:
    """Make containers of the namespaces: all have the rules that the Engine gives them."""
    for node in (*wires.consumers, wires.ambassador, *wires.providers):
        node.run("nft", "--file", "-", stdin=ENGINES_RULES)


@contextmanager
def direct(wires: Wires, _ports: Mapping[int, int]) -> Iterator[Running]:
    yield Running(wires.providers[0].v4)


@contextmanager
def ambassador(wires: Wires, ports: Mapping[int, int]) -> Iterator[Running]:
    variables = {
        f"P{port}_PORT_{port}_TCP": f"tcp://{wires.providers[0].v4}:{target}" for port, target in ports.items()
    }
    with ControlPlane(wires.ambassador, variables | QUIET) as plane:
        yield Running(wires.ambassador.v4, pids=[plane.pid])


@contextmanager
def shortcut(wires: Wires, ports: Mapping[int, int]) -> Iterator[Running]:
    """The same ambassador, and its rules in the consumer's own namespace."""
    address = wires.providers[0].v4
    routes = [
        Route(Listener(Protocol.TCP, port), number, (Target(address, target),))
        for number, (port, target) in enumerate(ports.items(), 1)
    ]
    with ambassador(wires, ports) as running:
        plane = KernelPlane(consumer(wires.consumer.namespace, [wires.ambassador.v4], "bench"))
        asyncio.run(plane.set(table(routes)))
        yield running


@contextmanager
def haproxy(wires: Wires, ports: Mapping[int, int]) -> Iterator[Running]:
    parts = [
        "global\n maxconn 3000\n",
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n",
    ]
    for port, target in ports.items():
        parts.append(
            f"listen l{port}\n bind :{port}\n option splice-auto\n server s {wires.providers[0].v4}:{target}\n"
        )
    with _scratch() as directory, _proxies(wires) as start:
        (directory / "haproxy.cfg").write_text("".join(parts))
        yield start(["haproxy", "-db", "-f", str(directory / "haproxy.cfg")])


@contextmanager
def nginx(wires: Wires, ports: Mapping[int, int]) -> Iterator[Running]:
    servers = "".join(
        f"server {{ listen {port} backlog=4096; proxy_pass {wires.providers[0].v4}:{target}; }}\n"
        for port, target in ports.items()
    )
    with _scratch() as directory, _proxies(wires) as start:
        (directory / "nginx.conf").write_text(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
            f"daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes auto;\n"
            f"events {{ worker_connections 4000; }}\nstream {{ proxy_timeout 1h;\n{servers}}}\n"
        )
        yield start(["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")])


@contextmanager
def socat(wires: Wires, ports: Mapping[int, int]) -> Iterator[Running]:
    with _proxies(wires) as start:
        yield start(
            *(
                ["socat", f"TCP-LISTEN:{port},fork,reuseaddr,backlog=4096", f"TCP:{wires.providers[0].v4}:{target}"]
                for port, target in ports.items()
            )
        )


@contextmanager
def docker_proxy(wires: Wires, ports: Mapping[int, int]) -> Iterator[Running]:
    provider, here = wires.providers[0].v4, wires.ambassador.v4
    with _proxies(wires) as start:
        yield start(
            *(
                [
                    *("sh", "-c", 'exec "$@" 3>/dev/null', "sh"),  # 3 is where it tells dockerd that it listens
                    *("docker-proxy", "-proto", "tcp", "-host-ip", here, "-host-port", str(port)),
                    *("-container-ip", provider, "-container-port", str(target)),
                ]
                for port, target in ports.items()
            )
        )


BARE = "bare"  # direct, between namespaces that are no containers
WAYS = {
    BARE: direct,
    "direct": direct,
    "shortcut": shortcut,
    "ambassador": ambassador,
    "HAProxy": haproxy,
    "nginx": nginx,
    "socat": socat,
    "docker-proxy": docker_proxy,
}


@contextmanager
def _proxies(wires: Wires) -> Iterator[Callable[..., Running]]:
    """Starts commands in the ambassador's place, and ends them."""
    with ExitStack() as stack:

        def start(*commands: Sequence[str]) -> Running:
            processes = [spawn(wires.ambassador, *command) for command in commands]
            for process in processes:
                stack.callback(_end, process)
            return Running(wires.ambassador.v4, processes)

        yield start


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dom0-bench-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _with_children(roots: Sequence[int]) -> list[int]:
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text()
            except OSError:  # it has just ended
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, fresh = set(roots), set(roots)
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return sorted(found)


def _pss(pid: int) -> int:
    """In KiB; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
