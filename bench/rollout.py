"""`make bench-farm`: what a farm's server costs with many nodes, in virtual time; its part of docs/benchmarks.md.

The server's own `Orders` and directory, without HTTP and TLS, and nodes that ask as real ones do, take random times and
all succeed. `--nodes 100 1000` measures these sizes; then nothing is written. It takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from bench.agent import pss
from bench.report import REPORT, write_section
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import MachineInfo, Node, Nodes, NodeState, key_of
from dom0.farms.orders import Orders
from dom0.farms.revisions import Blob, FarmImage, NodeReport, Revision, RoleContent, RoleState
from dom0.testing import virtual_time

SIZES = (100, 1000, 10_000)
ROLES = 10
OURS = Path("/proc/self")
AT_ONCE = 0.05  # of the nodes of a role
IMAGES, LAYERS = 5, 8  # of a role; layers of each
REQUEST = 285  # bytes of the heads of a request and its answer, and of TLS around them: counted on the wire
IDLE = 600.0  # seconds
FETCH, START = (5.0, 60.0), (5.0, 30.0)  # seconds that a node takes, between
HEAD = f"""`make bench-farm` writes this part: a farm's server whose nodes are simulated, in virtual time.
{ROLES} roles, of each of which {AT_ONCE:.0%} of the nodes go at once, with the default soak of 30 s; none fails. A node
fetches in 5 to 60 s and comes up in 5 to 30. The server's decisions and files are the real ones, on a disk in memory;
the nodes' own part is in the processor time, HTTP and TLS are not. Beside the memory a real connection that waits
takes 31 kB, seen with 2,000.

- **a change**: from a new revision until all nodes run it, as time passes for nodes, and as processor time. Most
  of that are the **decisions**, each of which is about all nodes.
- **an hour**: of processor time while nothing changes. Each node asks every 50 s.
- **memory**: what the process has more than before it knew the farm, without nodes and connections.
- **bytes**: of one node and its server in an hour in which nothing changes, with HTTP and TLS."""


class Inline(ThreadPoolExecutor):
    """Work for threads is done at once: virtual time would run away meanwhile."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


class Counted:
    """`bytes` that went between nodes and server, `decisions` and their seconds of processor time."""

    def __init__(self) -> None:
        self.bytes = self.decisions = 0
        self.deciding = 0.0


class CountedOrders(Orders):
    def __init__(self, farm: FarmDirectory, counted: Counted) -> None:
        super().__init__(farm, virtual_time.now)
        self._counted = counted

    def _decide(self, *args: Any) -> Any:
        began = time.process_time()
        try:
            return super()._decide(*args)
        finally:
            took = time.process_time() - began
            self._counted.decisions += 1
            self._counted.deciding += took
            asyncio.get_running_loop().pass_time(took)  # type: ignore[attr-defined]


def content(word: str) -> RoleContent:
    def blob(text: str) -> Blob:
        return Blob(digest=f"sha256:{key_of(f'{word} {text}')}", size=1 << 20)

    def image(name: str) -> FarmImage:
        layers = tuple(blob(f"{name} {number}") for number in range(LAYERS))
        return FarmImage(reference=name, manifest=blob(f"{name} m"), config=blob(f"{name} c"), layers=layers)

    return RoleContent(image=image("dom0:latest"), images=tuple(image(f"service{number}") for number in range(IMAGES)))


def revise(farm: FarmDirectory, number: int) -> Revision:
    roles = {f"role{role}": content(f"{number} {role}") for role in range(ROLES)}
    return farm.revise(lambda _known: Revision(number=number, made=virtual_time.now(), roles=roles))[0]


async def live(key: str, orders: Orders, report: NodeReport, order: random.Random, counted: Counted) -> None:
    """One node: as `farms.follow`, but for what takes its time."""
    digest = ""
    while True:
        await orders.hear(key, report, "10.0.0.1", lambda: False)
        told = await orders.wait(key, digest, lambda: False)
        assert told is not None
        answer = b"" if told.digest == digest else msgspec.json.encode(told.order)
        counted.bytes += REQUEST + len(msgspec.json.encode({"report": report, "told": digest})) + len(answer)
        digest, fetch, run = told.digest, told.order.fetch, told.order.run
        if fetch is not None and report.fetched != (wanted := fetch.digest):
            await asyncio.sleep(order.uniform(*FETCH))
            report = replace(report, fetched=wanted)
        if run is not None and report.content != (wanted := run.digest):
            number = told.order.revision
            report = replace(report, content=wanted, revision=number, turn=told.order.turn, state=RoleState.TRYING)
            await orders.hear(key, report, "10.0.0.1", lambda: False)
            await asyncio.sleep(order.uniform(*START))
            report = replace(report, state=RoleState.GOOD)


async def measure(count: int, directory: Path) -> tuple[str, ...]:
    """One row."""
    asyncio.get_running_loop().set_default_executor(Inline(1))
    farm, order, counted = FarmDirectory(directory / "attic"), random.Random(count), Counted()  # noqa: S311
    farm.make("attic", b"", {"roles/role0/compose.yaml": b"name: role0\n"})
    at_once = max(1, int(count / ROLES * AT_ONCE))
    roles = ", ".join(f"role{role}: {{at_once: {at_once}}}" for role in range(ROLES))
    (farm.path / "farm.yaml").write_text(f"name: attic\nroles: {{{roles}}}\n")
    now = virtual_time.now()
    nodes = [
        Node(
            key=key_of(str(number)),
            state=NodeState.ENROLLED,
            name=f"node{number}",
            role=f"role{number % ROLES}",
            machine=MachineInfo(hostname=f"node{number}", architecture="x86_64", memory=4 << 30),
            address="10.0.0.1",
            first=now,
            last=now,
        )
        for number in range(count)
    ]
    farm.change(lambda _none: (Nodes(nodes=tuple(nodes)), None))
    first = revise(farm, 1)
    digests = {role: of.digest for role, of in first.roles.items()}
    reports = {
        node.key: NodeReport(content=digests[node.role], fetched=digests[node.role], revision=1, state=RoleState.GOOD)
        for node in nodes
    }
    for key, report in reports.items():
        farm.put_report(key, report)
    before = pss(OURS)
    orders = CountedOrders(farm, counted)
    await orders.look()
    used = pss(OURS) - before
    async with asyncio.TaskGroup() as tasks:
        living = [tasks.create_task(orders.keep())]
        living += [tasks.create_task(live(node.key, orders, reports[node.key], order, counted)) for node in nodes]
        await asyncio.sleep(60)
        counted.bytes, began = 0, time.process_time()
        await asyncio.sleep(IDLE)
        idle, said = (time.process_time() - began) * 3600 / IDLE, counted.bytes * 3600 / IDLE
        counted.decisions, counted.deciding = 0, 0.0
        revise(farm, 2)
        changed, began = virtual_time.now(), time.process_time()
        while {settled.revision for settled in farm.rollout().settled.values()} != {2}:  # noqa: ASYNC110 -- on the disk
            await asyncio.sleep(5)
        took, worked = virtual_time.now() - changed, time.process_time() - began
        assert {report.revision for report in farm.reports().values()} == {2}
        for task in living:
            task.cancel()
    return (
        f"{count:,}",
        f"{took / 60:.0f} min",
        f"{worked:.1f} s",
        f"{worked / count * 1000:.1f} ms",
        f"{counted.decisions}, {counted.deciding / counted.decisions * 1000:.1f} ms each",
        f"{idle:.1f} s",
        f"{used:.1f} MB",
        f"{said / count / 1000:.0f} kB",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What a farm's server costs with many nodes.")
    parser.add_argument("--nodes", type=int, nargs="+", metavar="N")
    chosen = parser.parse_args().nodes
    rows = []
    for count in chosen or SIZES:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            rows.append(virtual_time.run(measure(count, Path(directory))))
        print("  ".join(rows[-1]), flush=True)
    heads = ("nodes", "a change", "processor time", "of each node", "decisions", "an hour", "memory", "bytes")
    lines = [f"| {' | '.join(row)} |" for row in (heads, ("---:",) * len(heads), *rows)]
    if not chosen:
        measured = f"Measured {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores, Linux {platform.release()}, Python"
        text = "\n".join((HEAD, "", f"{measured} {sys.version.split()[0]}.", "", *lines))
        write_section(REPORT, "Farms", text)


if __name__ == "__main__":
    main()
