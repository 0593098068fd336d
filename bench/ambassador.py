"""`make bench-ambassador`: what an ambassador costs beside the direct way and other forwarders; its part of
docs/benchmarks.md.

Consumer, forwarder and provider are network namespaces on one bridge, made anew for every measurement. In each round
all ways take their turn, so that a busy machine hits all of them; a ratio is to the direct way of the same round.
`--rounds N` and `--only WORD` make it short; then nothing is written.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from threading import Thread

from bench.report import REPORT, write_section
from bench.ways import BARE, FILES, QUIET, WAYS, Running, settle, spawn
from dom0.testing.control_plane import ControlPlane
from dom0.testing.wires import Node, Wires, eventually

REDIS, IPERF, IDLE = 6379, 5201, 7000  # ports
STREAM_SECONDS, GETS, CONNECTS, CLIENTS = 2, 60_000, 8_000, 20
OPEN = 200  # idle connections while memory is measured
CUT = 2_000
REWIRES = 50
PROXIES = ("HAProxy", "nginx", "socat", "docker-proxy")


class Measured:
    """Samples of one kind of all ways, round by round."""

    def __init__(self, what: str, unit: str, *, more_is_better: bool, digits: int = 0) -> None:
        self.what, self.unit, self.more_is_better, self.digits = what, unit, more_is_better, digits
        self.samples: dict[str, list[float]] = {way: [] for way in WAYS}

    def ratio(self, way: str) -> float:
        """To the direct way, of the same rounds."""
        pairs = zip(self.samples[way], self.samples["direct"], strict=True)
        return median(mine / theirs for mine, theirs in pairs)

    def is_ahead(self, way: str, of: str) -> bool:
        mine, theirs = median(self.samples[way]), median(self.samples[of])
        return mine > theirs if self.more_is_better else mine < theirs

    def line(self) -> str:
        cells = [self._cell(way) for way in WAYS]
        return f"| {self.what} | {' | '.join(cells)} |"

    def _cell(self, way: str) -> str:
        samples = self.samples[way]
        if not samples:
            return ""
        value = f"{median(samples):,.{self.digits}f} {self.unit}"
        return value if way == "direct" or not self.samples["direct"] else f"{value} ({self.ratio(way):.2f})"


def measure(rounds: int, only: str) -> list[Measured]:
    stream = Measured("one stream", "Gbit/s", more_is_better=True, digits=2)
    gets = Measured("redis GET", "/s", more_is_better=True)
    p50 = Measured("GET, p50", "ms", more_is_better=False, digits=3)
    p99 = Measured("GET, p99", "ms", more_is_better=False, digits=3)
    connects = Measured("new connections, one GET each", "/s", more_is_better=True)
    memory = Measured(f"memory with {OPEN} idle connections", "MB", more_is_better=False, digits=1)
    for number in range(rounds):
        names = list(WAYS)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if only in name or (only and name == "direct"):
                began = time.monotonic()
                with _stage(name) as (wires, running):
                    stream.samples[name].append(_stream(wires.consumer, running))
                    rate, low, high = _redis(wires.consumer, running, "-n", str(GETS))
                    gets.samples[name].append(rate)
                    p50.samples[name].append(low)
                    p99.samples[name].append(high)
                    rate, _, _ = _redis(wires.consumer, running, "-n", str(CONNECTS), "-k", "0")
                    connects.samples[name].append(rate)
                    if name not in (BARE, "direct"):
                        memory.samples[name].append(_memory(wires.consumer, running))
                print(f" ok round {number + 1}, {name} ({time.monotonic() - began:.0f} s)", flush=True)
    return [stream, gets, p50, p99, connects, memory]


@contextlib.contextmanager
def _stage(name: str) -> Iterator[tuple[Wires, Running]]:
    with Wires(providers=1, ports=(IDLE,)) as wires, contextlib.ExitStack() as stack:
        if name != BARE:
            settle(wires)
        provider = wires.providers[0]
        for argv in (
            ["redis-server", "--save", "", "--protected-mode", "no", "--tcp-backlog", "4096"],
            ["iperf3", "--server"],
        ):
            process = spawn(provider, *argv)
            stack.callback(process.wait)
            stack.callback(process.kill)
        running = stack.enter_context(WAYS[name](wires, {port: port for port in (REDIS, IPERF, IDLE)}))
        for port in (REDIS, IPERF, IDLE):
            eventually(partial(_accepts, wires.consumer, running.address, port), f"{name}: port {port}")
        yield wires, running


def _accepts(node: Node, address: str, port: int) -> bool:
    try:
        node.connect(address, port).close()
    except OSError:
        return False
    return True


def _stream(consumer: Node, running: Running) -> float:
    """Gbit/s."""
    argv = ["iperf3", "--client", running.address, "--time", str(STREAM_SECONDS), "--json"]

    def measured() -> float:
        """0 while the server still listens to whoever asked whether it does."""
        end = json.loads(consumer.run(*argv, check=False))["end"]
        return float(end["sum_received"]["bits_per_second"]) if end else 0.0

    return eventually(measured, "a stream") / 1e9


def _redis(consumer: Node, running: Running, *options: str) -> tuple[float, float, float]:
    """Requests a second, p50 and p99 in ms."""
    argv = ["redis-benchmark", "-h", running.address, "-t", "get", "-c", str(CLIENTS), "--csv", *options]
    head, *rows = csv.reader(consumer.run(*argv).splitlines())
    row = dict(zip(head, rows[-1], strict=True))
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def _memory(consumer: Node, running: Running) -> float:
    clients = [consumer.connect(running.address, IDLE) for _ in range(OPEN)]
    for client in clients:
        client.ask()
    return running.memory()


# what only an ambassador does


def _rewire() -> list[float]:
    """Seconds from the request to the first byte from the new target, on a new connection."""
    samples = []
    with Wires(providers=2, ports=(IDLE,)) as wires, _own(wires) as plane:
        for number in range(REWIRES):
            target = wires.providers[(number + 1) % 2]
            asking = Thread(target=plane.rewire, args=(f"{target.v4}:{IDLE}",))
            began = time.monotonic()
            asking.start()
            while not _answers(wires, f"{target.name}:"):
                pass
            samples.append(time.monotonic() - began)
            asking.join()
    return samples


def _answers(wires: Wires, name: str) -> bool:
    client = wires.consumer.connect(wires.ambassador.v4, IDLE)
    try:
        return client.ask().startswith(name)
    finally:
        client.close()


def _cut(rounds: int) -> list[float]:
    """Seconds from the request until each of the idle clients was told."""
    samples = []
    for _ in range(rounds):
        with Wires(providers=2, ports=(IDLE,)) as wires, _own(wires) as plane:
            clients = [wires.consumer.connect(wires.ambassador.v4, IDLE) for _ in range(CUT)]
            for client in clients:
                client.ask()
            began = time.monotonic()
            receipt = plane.rewire(f"{wires.providers[1].v4}:{IDLE}", existing="cut")
            told = sum(client.is_reset() for client in clients)
            samples.append(time.monotonic() - began)
            if (receipt.cut, told) != (CUT, CUT):
                raise RuntimeError(f"{receipt.cut} connections were cut and {told} clients told, of {CUT}")
            eventually(lambda: not wires.providers[0].peers, "the other ends' news")
    return samples


@contextlib.contextmanager
def _own(wires: Wires) -> Iterator[ControlPlane]:
    variables = {f"X_PORT_{IDLE}_TCP": f"tcp://{wires.providers[0].v4}:{IDLE}"}
    with ControlPlane(wires.ambassador, variables | QUIET) as plane:
        yield plane


# the report


def _report(rounds: int, measured: list[Measured], rewires: list[float], cuts: list[float]) -> str:
    return "\n\n".join(
        [
            _INTRODUCTION,
            f"Measured {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores, Linux {platform.release()}, "
            f"{_versions()}; medians of {rounds} rounds.",
            _table(measured),
            "\n".join(["| | seen | to reach | |", "|---|---:|---:|---|", *_goals(measured, rewires, cuts)]),
        ]
    )


def _table(measured: list[Measured]) -> str:
    head = f"| | {' | '.join(WAYS)} |\n|---|{'---:|' * len(WAYS)}"
    return "\n".join([head, *(one.line() for one in measured)])


def _goals(measured: list[Measured], rewires: list[float], cuts: list[float]) -> Iterator[str]:
    for one in measured:
        if not one.more_is_better:
            continue
        for way, least in (("shortcut", 0.97), ("ambassador", 0.85)):
            ratio = one.ratio(way)
            yield f"| {one.what}: {way}, of direct | {ratio:.2f} | ≥ {least} | {_verdict(ratio >= least)} |"
    for one in measured:
        ahead = [way for way in PROXIES if not one.is_ahead("ambassador", way)]
        seen = f"behind {', '.join(ahead)}" if ahead else "ahead"
        yield f"| {one.what}: ambassador beside the proxies | {seen} | ahead | {_verdict(not ahead)} |"
    slow, took = median(rewires) * 1000, median(cuts)
    what = "a rewire, until a new connection's first byte from the new target"
    yield f"| {what} | {slow:.1f} ms | ≤ 20 ms | {_verdict(slow <= 20)} |"
    what = f"{CUT:,} idle connections cut, until each client was told"
    yield f"| {what} | {took:.2f} s | ≤ 0.5 s | {_verdict(took <= 0.5)} |"


def _verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"


def _versions() -> str:
    """Of what is compared, as Debian counts them."""
    query = ["dpkg-query", "--show", "--showformat=${Package} ${Version}, ", "haproxy", "nginx", "socat", "docker.io"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.rstrip(", ")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ambassador", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="default: %(default)s")
    parser.add_argument("--only", default="", metavar="WORD", help="only the ways with WORD in their names")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    measured = measure(arguments.rounds, arguments.only)
    if arguments.only:
        print(_table(measured))
        return
    report = _report(arguments.rounds, measured, _rewire(), _cut(arguments.rounds))
    print(report)
    if arguments.rounds == _ROUNDS:
        write_section(REPORT, "Ambassadors", report)


_ROUNDS = 5
_INTRODUCTION = """\
`make bench-ambassador` writes this part. Consumer, forwarder and provider are network namespaces on one bridge of one
machine, so all of them share its cores. In brackets: the ratio to the direct way in the same round.

- **direct**: from container to container. What the Engine lays into every container on a network, the rules by which
  its name server is found, is there in all ways, and makes the kernel track all connections. **bare**: without them, as
  between processes that are in no container; nobody who takes a container has that.
- **shortcut**: the ambassador's rules in the consumer's own namespace; **ambassador**: the same ambassador in its own.
- **one stream**: `iperf3`. **redis GET**: `redis-benchmark` with 20 clients. **new connections**: the same, with one
  for each request.
- **memory**: the proportional set size of the forwarder's processes. The ambassador's is its control plane; what
  forwards is the kernel."""

if __name__ == "__main__":
    main()
