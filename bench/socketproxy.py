"""`make bench-socket`: what a scoped socket costs beside the Engine's own; its part of docs/benchmarks.md.

Both sockets of one Engine take turns in each round, each first in every other one, so that a busy machine hits both,
and what one leaves to be written too. `--rounds N` makes it short, and
`--only logs load` measures these rows; then nothing is written. It takes 4 GB of disk below the test kit's directory,
until it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from bench.report import REPORT, Row, at_most, at_most_more, at_most_ratio, table, write_section
from dom0.testing import api, busybox, owned, scopes
from dom0.testing.hosts import Host

ASKS = 200  # of one kind in a round
CONTAINERS = 10  # there are, while they are listed
STARTS = 5
ARCHIVES = 5  # that are asked for in a round
ANSWER_BYTES = 100 << 20
IMAGE_BYTES = 1 << 30
LOADED_WITHIN = 600.0  # seconds
LOG_LINES = 400_000
LOG_LINE = "x" * 99
SCOPES = 50
HEAD = """`make bench-socket` writes this part: [a scoped socket](socketproxy.md) beside the Engine's own, in turns.
Of other proxies none was found in Debian's packages or npm's, and one in PyPI, dockershield 0.0.4 of 2020, which
looks at methods and paths; it is not measured.

Of a GB that is loaded the server hashes each byte: the Engine takes a layer that it has for one that is only named, so
without that a digest would be enough to get what others have. Without an Engine a GB takes the server 0.83 to 0.93 s of
processor time: 0.53 for the hash, 0.25 in the kernel to receive and send it, 0.02 for the chunks it comes in.

`docker load` takes longer while the archive passes; then the Engine unpacks what it has, as without a scope. In seven
pairs on 2026-11-29, by hand, in memory and on a busy machine that gave them nearly all of its two processors, it took
1.17 s (1.03 to 1.23) on the Engine's socket until docker had sent all, and 1.66 s (1.40 to 1.83) on a scoped one.
docker and the Engine have 1.3 s of work meanwhile, and the server, which hardly ever waits for either, adds 1.0 s. A
thread that hashes took 0.2 to 0.4 s of processor time more and ended no sooner."""
GRANTS = "images: {use: [busybox]}"
BIG = "big:1"
ROWS = ("ping", "list", "start", "archive", "logs", "load", "memory")


class Samples:
    """Of one thing through both sockets; a stream is counted in seconds too."""

    def __init__(self) -> None:
        self.scoped: list[float] = []
        self.raw: list[float] = []
        self._is_raw_first = False

    def take(self, measure: Callable[[Path], list[float]], scoped: Path, raw: Path) -> None:
        turns = [(self.scoped, scoped), (self.raw, raw)]
        for samples, path in reversed(turns) if self._is_raw_first else turns:
            samples.extend(measure(path))
        self._is_raw_first = not self._is_raw_first


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
    """Seconds for each archive of ANSWER_BYTES out of a container."""

    def once() -> None:
        with _connected(path) as connection:
            _ask(connection, "/containers/big/archive?path=/big")

    return [_seconds(once) for _ in range(ARCHIVES)]


def logged(path: Path) -> list[float]:
    """Seconds for all that a container has said."""
    with _connected(path) as connection:
        return [_seconds(lambda: _ask(connection, "/containers/says/logs?stdout=1"))]


def loading(host: Host, archive: Path) -> Callable[[Path], list[float]]:
    """Seconds for an image that is not there."""

    def measure(path: Path) -> list[float]:
        os.sync()
        taken = _seconds(lambda: scopes.docker(host, path, "load", "--input", str(archive), patience=LOADED_WITHIN))
        scopes.docker(host, path, "rmi", BIG)
        return [taken]

    return measure


def _ask(connection: http.client.HTTPConnection, target: str) -> None:
    connection.request("GET", target)
    answer = connection.getresponse()
    while answer.read(1 << 20):
        pass
    assert answer.status == http.client.OK, target


def _seconds(do: Callable[[], object]) -> float:
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
    """Both sides have containers `big` and `says`, and the scope CONTAINERS of its own."""
    done = {
        "big": f"dd if=/dev/zero of=/big bs=1M count={ANSWER_BYTES >> 20}",
        "says": f"seq {LOG_LINES} | sed s/.*/{LOG_LINE}/",
    }
    for path in (scoped, host.socket):
        for name, script in done.items():
            body = {"Image": busybox.IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}
            made = api.request(path, "POST", "/containers/create", body, query={"name": name})
            api.request(path, "POST", f"/containers/{made['Id']}/start")
            api.request(path, "POST", f"/containers/{made['Id']}/wait")
    for number in range(CONTAINERS):
        body = {"Image": busybox.IMAGE, "Cmd": ["true"]}
        api.request(scoped, "POST", "/containers/create", body, query={"name": f"c{number}"})


def _archive(host: Host) -> Path:
    """Of an image of random data, which the host does not have afterwards."""
    context, archive = host.root / "context", host.root / "big.tar"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY data /\n")
    with (context / "data").open("wb") as data:
        for _ in range(IMAGE_BYTES >> 20):
            data.write(os.urandom(1 << 20))
    scopes.docker(host, host.socket, "build", "--tag", BIG, str(context), patience=LOADED_WITHIN)
    shutil.rmtree(context)
    scopes.docker(host, host.socket, "save", "--output", str(archive), BIG, patience=LOADED_WITHIN)
    scopes.docker(host, host.socket, "rmi", BIG)
    return archive


def _memory_of_many(host: Host) -> float:
    """Of SCOPES servers together, all of which run."""
    with contextlib.ExitStack() as stack:
        paths = []
        for number in range(SCOPES):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            paths.append(stack.enter_context(scopes.served(host, directory, GRANTS, scope=f"guest{number}")))
        for path in paths:
            asked("/containers/json?all=1")(path)
        return sum(_memory(path) for path in paths)


def _memory_together(host: Host) -> float:
    """Of one process that serves SCOPES."""
    names = [f"guest{number}" for number in range(SCOPES)]
    with (
        tempfile.TemporaryDirectory() as directory,
        scopes.Together(host, Path(directory), dict.fromkeys(names, GRANTS)) as together,
    ):
        together.await_served(*names)
        for name in names:
            asked("/containers/json?all=1")(together.socket(name))
        return _memory(together.socket(names[0]))


def _memory(path: Path) -> float:
    """Of the process that serves the socket, in MB: what is its own, and its share of what it has in common."""
    lines = Path(f"/proc/{peer(path)}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def peer(path: Path) -> int:
    """The process that serves the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.connect(str(path))
        return int.from_bytes(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


def measure(rounds: int, only: Collection[str]) -> list[Row]:
    samples = {name: Samples() for name in only if name != "memory"}
    memory, many, at_once = 0.0, 0.0, 0.0
    with (
        Host(name="bench") as host,
        tempfile.TemporaryDirectory() as directory,
        scopes.served(host, Path(directory), GRANTS) as scoped,
    ):
        _fill(host, scoped)
        measures = {
            "ping": asked("/_ping"),
            "list": asked("/containers/json?all=1"),
            "start": started,
            "archive": streamed,
            "logs": logged,
        }
        if "load" in only:
            measures["load"] = loading(host, _archive(host))
        for _ in range(rounds):
            for name, taken in samples.items():
                taken.take(measures[name], scoped, host.socket)
        if "memory" in only:
            memory, many, at_once = _memory(scoped), _memory_of_many(host), _memory_together(host)
    rows = {
        "ping": (at_most_more, "`GET /_ping`", 0.002),
        "list": (at_most_more, f"`GET /containers/json` of {CONTAINERS}", 0.002),
        "start": (at_most_ratio, "create and start", 1.05),
        "archive": (at_most_ratio, f"an archive of {ANSWER_BYTES >> 20} MB", 1.11),
        "logs": (at_most_ratio, f"logs of {LOG_LINES * (len(LOG_LINE) + 1) >> 20} MB", 1.11),
        "load": (at_most_ratio, "`docker load` of 1 GB", 1.11),
    }
    found = []
    for name, taken in samples.items():
        row, what, goal = rows[name]
        found.append(row(what, taken.scoped, taken.raw, "the Engine's socket", goal))
    if "memory" in only:
        found += [
            at_most("memory of one scope's process, after all this", [memory], 26.0, "MB"),
            at_most(f"memory of one process for {SCOPES} scopes", [at_once], 25.0 + SCOPES, "MB"),
            Row(f"memory of {SCOPES} scopes with a process each", [many], unit="MB"),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.socketproxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, help="rows; default: all")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    owned.sweep()
    rows = measure(arguments.rounds, [name for name in ROWS if name in arguments.only])
    print(table(rows))
    if arguments.rounds == parser.get_default("rounds") and arguments.only is ROWS:
        facts = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
        when = f"Measured {time.strftime('%Y-%m-%d')}: {facts}; medians of {arguments.rounds} rounds."
        write_section(REPORT, "Scoped sockets", f"{HEAD}\n\n{when}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
