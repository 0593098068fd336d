"""`make bench-socket`: what a scoped socket costs beside the Engine's own; its part of docs/benchmarks.md.

Both sockets of one Engine take turns in each round, so that a busy machine hits both. `--rounds N` makes it short; then
nothing is written.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.report import REPORT, Row, at_most, at_most_more, at_most_ratio, table, write_section
from dom0.testing import api, busybox, owned, scopes
from dom0.testing.hosts import Host

ASKS = 200  # of one kind in a round
CONTAINERS = 10  # there are, while they are listed
STARTS = 5
ANSWER_BYTES = 100 << 20
GRANTS = "images: {use: [busybox]}"


class Samples:
    """Of one thing through both sockets; a stream is counted in seconds too."""

    def __init__(self) -> None:
        self.scoped: list[float] = []
        self.raw: list[float] = []

    def take(self, measure: Callable[[Path], list[float]], scoped: Path, raw: Path) -> None:
        self.scoped += measure(scoped)
        self.raw += measure(raw)


def asked(target: str) -> Callable[[Path], list[float]]:
    """Seconds of each of many questions on one connection."""

    def measure(path: Path) -> list[float]:
        with _connected(path) as connection:
            return [_seconds(lambda: _ask(connection, target)) for _ in range(ASKS)]

    return measure


def started(path: Path) -> list[float]:
    """Seconds to create and start a container."""
    taken = []
    for _ in range(STARTS):
        body = {"Image": busybox.IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        began = time.perf_counter()
        made = api.request(path, "POST", "/containers/create", body)
        api.request(path, "POST", f"/containers/{made['Id']}/start")
        taken.append(time.perf_counter() - began)
        api.request(path, "DELETE", f"/containers/{made['Id']}", query={"force": "1"})
    return taken


def streamed(path: Path) -> list[float]:
    """Seconds for an archive of ANSWER_BYTES out of a container."""
    with _connected(path) as connection:
        return [_seconds(lambda: _ask(connection, "/containers/big/archive?path=/big"))]


def _ask(connection: http.client.HTTPConnection, target: str) -> None:
    connection.request("GET", target)
    answer = connection.getresponse()
    while answer.read(1 << 20):
        pass
    assert answer.status == http.client.OK, target


def _seconds(do: Callable[[], None]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("docker", timeout=120)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(path))
        connection.sock = stream
        yield connection


def _fill(host: Host, scoped: Path) -> None:
    """Both sides have a container `big`, and the scope CONTAINERS of its own."""
    fill = ["sh", "-c", f"dd if=/dev/zero of=/big bs=1M count={ANSWER_BYTES >> 20}"]
    for path in (scoped, host.socket):
        body = {"Image": busybox.IMAGE, "Cmd": fill, "HostConfig": {"NetworkMode": "none"}}
        made = api.request(path, "POST", "/containers/create", body, query={"name": "big"})
        api.request(path, "POST", f"/containers/{made['Id']}/start")
        api.request(path, "POST", f"/containers/{made['Id']}/wait")
    for number in range(CONTAINERS):
        body = {"Image": busybox.IMAGE, "Cmd": ["true"]}
        api.request(scoped, "POST", "/containers/create", body, query={"name": f"c{number}"})


def _memory(path: Path) -> float:
    """Of the process that serves the socket, in MB: what is its own, and its share of what it has in common."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(path))
        pid = int.from_bytes(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def measure(rounds: int) -> list[Row]:
    ping, rows, starts, stream = Samples(), Samples(), Samples(), Samples()
    with (
        Host(name="bench") as host,
        tempfile.TemporaryDirectory() as directory,
        scopes.served(host, Path(directory), GRANTS) as scoped,
    ):
        _fill(host, scoped)
        for _ in range(rounds):
            ping.take(asked("/_ping"), scoped, host.socket)
            rows.take(asked("/containers/json?all=1"), scoped, host.socket)
            starts.take(started, scoped, host.socket)
            stream.take(streamed, scoped, host.socket)
        memory = _memory(scoped)
    megabytes = ANSWER_BYTES >> 20
    return [
        at_most_more("`GET /_ping`", ping.scoped, ping.raw, "the Engine's socket", 0.002),
        at_most_more(f"`GET /containers/json` of {CONTAINERS}", rows.scoped, rows.raw, "the Engine's socket", 0.002),
        at_most_ratio("create and start", starts.scoped, starts.raw, "the Engine's socket", 1.05),
        at_most_ratio(f"an archive of {megabytes} MB", stream.scoped, stream.raw, "the Engine's socket", 1.11),
        at_most("memory of one scope's process", [memory], 26.0, "MB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.socketproxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    owned.sweep()
    rows = measure(arguments.rounds)
    print(table(rows))
    if arguments.rounds == parser.get_default("rounds"):
        facts = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
        head = (
            "`make bench-socket` writes this part: [a scoped socket](socketproxy.md) beside the Engine's own, in turns."
        )
        when = f"Measured {time.strftime('%Y-%m-%d')}: {facts}; medians of {arguments.rounds} rounds."
        write_section(REPORT, "Scoped sockets", f"{head}\n\n{when}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
