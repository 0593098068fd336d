"""`python -m bench.many`: a scoped socket beside many objects of others, and with many of its own. By hand; it prints.

Both sockets take turns, at each stage: alone, beside what others have, with much of its own. At last two other scopes
are asked, one of the same process and one of a process of its own, while this one lists all it has again and again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.socketproxy import peer
from dom0.testing import api, busybox, owned, scopes
from dom0.testing.hosts import Host

ASKS = 5
ASKS_BESIDE = 200
LISTING = 2  # clients
AT_ONCE = 50  # lists
LIST = "/containers/json?all=1"
SHORT_LIST = "/containers/json"  # of what runs, which is nothing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__)
    parser.add_argument("--foreign", type=int, default=5000, help="containers, and as many volumes")
    parser.add_argument("--own", type=int, default=2000, help="containers, and as many volumes")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    owned.sweep()
    grants = f"{{images: {{use: [busybox]}}, containers: {arguments.own + 100}, volumes: {arguments.own + 100}}}"
    with (
        Host(name="many") as host,
        tempfile.TemporaryDirectory() as ours,
        tempfile.TemporaryDirectory() as apart,
        scopes.Together(host, Path(ours), {"guest": grants, "small": grants}) as together,
        scopes.served(host, Path(apart), grants, scope="apart") as alone,
    ):
        together.await_served("guest", "small")
        scoped = together.socket("guest")
        beside = {"the same process": together.socket("small"), "its own": alone, "none, the Engine": host.socket}
        make(scoped, "web", 1)
        report(host, scoped, "alone")
        with told(f"{arguments.foreign} foreign containers and volumes are made"):
            make(host.socket, "other", arguments.foreign)
        report(host, scoped, f"beside {2 * arguments.foreign:,} foreign objects")
        with told(f"{arguments.own} own containers and volumes are made"):
            make(scoped, "own", arguments.own)
        report(host, scoped, f"and with {2 * arguments.own:,} of its own")
        report_beside(beside, "scopes beside it")
        with _listed_all_the_time(scoped):
            report_beside(beside, f"scopes beside it, while {LISTING} clients list what it has")
        with told("containers are pruned"):
            pruned = api.request(scoped, "POST", "/containers/prune", timeout=3600)["ContainersDeleted"]
        left = api.request(host.socket, "GET", "/containers/json", query={"all": "1"})
        print(f"{len(pruned)} of its own are gone, {len(left)} foreign ones are there; {memory(scoped)}", flush=True)


def make(path: Path, name: str, count: int) -> None:
    def one(number: int) -> None:
        create(path, f"{name}{number}")
        api.request(path, "POST", "/volumes/create", {"Name": f"{name}{number}"})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(count)))


def create(path: Path, name: str) -> None:
    body = {"Image": busybox.IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    api.request(path, "POST", "/containers/create", body, query={"name": name})


def report(host: Host, scoped: Path, what: str) -> None:
    print(what, flush=True)
    for target, raw_target in (
        (LIST, LIST),
        ("/containers/web0/json", "/containers/guest.web0/json"),
        ("/volumes", "/volumes"),
        ("/info", "/info"),
    ):
        seconds = [
            [_seconds(at, asked) for at, asked in ((scoped, target), (host.socket, raw_target))] for _ in range(ASKS)
        ]
        ours, raw = (median(one) * 1000 for one in zip(*seconds, strict=True))
        print(f"  GET {target}: {ours:.0f} ms, the Engine's socket {raw:.0f} ms", flush=True)
    seconds = [[_made(at, number) for at in (scoped, host.socket)] for number in range(ASKS)]
    ours, raw = (median(one) * 1000 for one in zip(*seconds, strict=True))
    print(f"  create: {ours:.0f} ms, the Engine's socket {raw:.0f} ms; {memory(scoped)}", flush=True)
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        statuses = list(threads.map(lambda _: _status(scoped, LIST), range(AT_ONCE)))
    answered = statuses.count("answered")
    print(
        f"  {AT_ONCE} lists at once: {time.perf_counter() - began:.1f} s, {answered} answered; {memory(scoped)}",
        flush=True,
    )


def report_beside(beside: Mapping[str, Path], what: str) -> None:
    """`beside`: sockets by the process that serves them."""
    print(what, flush=True)
    for target in ("/_ping", SHORT_LIST):
        rounds = [[_seconds(path, target) * 1000 for path in beside.values()] for _ in range(ASKS_BESIDE)]
        for name, taken in zip(beside, zip(*rounds, strict=True), strict=True):
            slow = sorted(taken)[-ASKS_BESIDE // 20]
            print(f"  GET {target}, {name}: {median(taken):.1f} ms, one of twenty {slow:.0f} ms or more", flush=True)


@contextmanager
def _listed_all_the_time(path: Path) -> Iterator[None]:
    has_ended = threading.Event()

    def ask() -> None:
        while not has_ended.is_set():
            _status(path, LIST)

    with ThreadPoolExecutor(LISTING) as threads:
        for _ in range(LISTING):
            threads.submit(ask)
        try:
            yield
        finally:
            has_ended.set()


def _seconds(path: Path, target: str) -> float:
    began = time.perf_counter()
    api.request(path, "GET", target.partition("?")[0], query=_query(target))
    return time.perf_counter() - began


def _made(path: Path, number: int) -> float:
    began = time.perf_counter()
    create(path, f"more{number}")
    taken = time.perf_counter() - began
    api.request(path, "DELETE", f"/containers/more{number}")
    return taken


def _status(path: Path, target: str) -> str:
    try:
        api.request(path, "GET", target.partition("?")[0], query=_query(target), timeout=600)
    except api.EngineRefused as refused:
        return str(refused)
    return "answered"


def _query(target: str) -> dict[str, Any]:
    return dict(pair.split("=") for pair in target.partition("?")[2].split("&") if pair)


def memory(path: Path) -> str:
    """Of the server now, and the most that it has had."""
    lines = Path(f"/proc/{peer(path)}/status").read_text().splitlines()
    now, most = (next(int(line.split()[1]) for line in lines if line.startswith(key)) for key in ("VmRSS:", "VmHWM:"))
    return f"the server has {now / 1000:.0f} MB, at most {most / 1000:.0f} MB"


@contextmanager
def told(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what} in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
