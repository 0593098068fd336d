"""`make bench-pull`: images over lines that break, stall and refuse; its part of docs/benchmarks.md.

Registry and line are in this process, what fetches is a process of its own, so that it can be killed. `--only WORD`
takes the lines with that word in their names; then nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec

from bench.report import REPORT, write_section
from dom0.registry.client import Registry
from dom0.registry.depot import Depot
from dom0.registry.fetch import fetch
from dom0.registry.manifest import Descriptor
from dom0.testing.blob_server import BlobServer, content, describe
from dom0.testing.fault_proxy import FaultProxy, Faults

MB = 10**6
IMAGE = (30 * MB, 22 * MB, 12 * MB, 4 * MB)
HALF = (17 * MB, 11 * MB, 6 * MB)
REPOSITORY = "team/app"
MOST_SENT, MOST_TIME = 1.005, 1.05  # to reach


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`kills`: whether the fetching process is killed again and again, seconds apart; then the time is no matter."""

    name: str
    blobs: tuple[int, ...]  # bytes
    faults: Faults
    kills: tuple[float, float] | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` that the last process took, of which `outages` in which nothing could come; `deaths` of others."""

    case: Case
    sent: int
    seconds: float
    outages: float
    cuts: int
    deaths: int

    @property
    def size(self) -> int:
        return sum(self.case.blobs)

    @property
    def sent_share(self) -> float:
        return self.sent / self.size

    @property
    def time_share(self) -> float:
        return self.seconds / (self.size / self.case.faults.rate + self.outages)

    @property
    def verdict(self) -> str:
        if self.deaths:
            return f"{(self.sent - self.size) / self.deaths / 1000:.0f} kB a kill"
        return "yes" if self.sent_share <= MOST_SENT and self.time_share <= MOST_TIME else "**no**"


EACH = 8 << 20
CASES = (
    Case(name="closed every 8 MiB", blobs=IMAGE, faults=Faults(every_bytes=EACH, rate=5e6)),
    Case(name="reset every 8 MiB", blobs=IMAGE, faults=Faults(every_bytes=EACH, how="reset", rate=5e6)),
    Case(name="silent every 8 MiB", blobs=IMAGE, faults=Faults(every_bytes=EACH, how="stall", rate=5e6)),
    Case(
        name="closed every 8 MiB, then refused for 3 s",
        blobs=IMAGE,
        faults=Faults(every_bytes=EACH, rate=5e6, refuse=3),
    ),
    Case(name="all connections reset each 3 s", blobs=HALF, faults=Faults(every_seconds=3, how="reset", rate=1e6)),
    Case(name="1,000 drops/GB, RTT 50 ms", blobs=HALF, faults=Faults(every_bytes=MB, how="reset", rate=1e6, rtt=0.05)),
    Case(
        name="the same, one layer", blobs=(sum(HALF),), faults=Faults(every_bytes=MB, how="reset", rate=1e6, rtt=0.05)
    ),
    Case(
        name="125 kB/s, reset each 8 s",
        blobs=(9 * MB, MB // 2),
        faults=Faults(every_seconds=8, how="reset", rate=125e3),
    ),
    Case(name="killed after 1 to 3 s", blobs=IMAGE, faults=Faults(rate=5e6), kills=(1.0, 3.0)),
    Case(name="killed after 1 to 3 s", blobs=HALF, faults=Faults(rate=1e6), kills=(1.0, 3.0)),
)


async def measure(case: Case) -> Found:
    """Raises AssertionError for a blob that is another one."""
    blobs = [content(size, number) for number, size in enumerate(case.blobs)]
    told = msgspec.json.encode([describe(blob) for blob in blobs])
    with tempfile.TemporaryDirectory(prefix="dom0-bench-", dir="/var/tmp") as root:
        async with BlobServer(blobs) as server, FaultProxy(server.port, case.faults) as proxy:
            seconds, deaths = await _fetched(case, root, proxy.port, told)
        await asyncio.to_thread(_check, Path(root), len(blobs))
    return Found(case=case, sent=proxy.sent, seconds=seconds, outages=proxy.outages, cuts=proxy.cuts, deaths=deaths)


async def _fetched(case: Case, root: str, port: int, told: bytes) -> tuple[float, int]:
    """For how many seconds the last process fetched, and how many were killed before."""
    random, deaths = Random(5), 0  # noqa: S311 -- no secret
    while True:
        argv = (sys.executable, "-m", "bench.pull", "--fetch", root, "--port", str(port))
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE)
        ending = asyncio.create_task(process.communicate(told))
        await asyncio.wait([ending], timeout=random.uniform(*case.kills) if case.kills else None)
        if ending.done():
            assert process.returncode == 0, process.returncode
            return float(ending.result()[0]), deaths
        process.kill()
        await ending
        deaths += 1


def _check(root: Path, count: int) -> None:
    blobs = list(root.glob("*/blob"))
    assert len(blobs) == count, blobs
    for blob in blobs:
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name


async def _fetch(root: Path, port: int) -> None:
    """What the process does that is killed."""
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Descriptor])
    registry, depot = Registry(f"127.0.0.1:{port}"), Depot(root, 1 << 40)
    began = time.monotonic()
    with depot.use(each.digest for each in wanted):
        await fetch(wanted, registry, depot, repository=REPOSITORY)
    print(time.monotonic() - began)
    await registry.close()


def table(found: Sequence[Found]) -> str:
    lines = ["| line | size | sent ÷ size | time ÷ ideal | cuts, kills | |", "|---|---:|---:|---:|---:|---|"]
    for each in found:
        taken = "" if each.case.kills else f"{each.time_share:.3f}"
        rate = (
            f"{each.case.faults.rate / MB:g} MB/s, {each.case.name}" if "kB/s" not in each.case.name else each.case.name
        )
        counts = each.cuts + each.deaths
        lines.append(
            f"| {rate} | {each.size / MB:g} MB | {each.sent_share:.4f} | {taken} | {counts} | {each.verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pull", description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--fetch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fetch:
        asyncio.run(_fetch(arguments.fetch, arguments.port))
        return
    found = []
    for case in CASES:
        if arguments.only in case.name:
            found.append(asyncio.run(measure(case)))
            print(
                table(found[-1:]).splitlines()[-1],
                f"{found[-1].seconds:.1f} s, {found[-1].outages:.1f} s of outages",
                flush=True,
            )
    if not arguments.only:
        facts = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
        head = (
            "`make bench-pull` writes this part: blobs of an image through a line that breaks. Ideal is the size by "
            "the rate of the line, and the time in which nothing could come. "
            f"To reach: {MOST_SENT:g} of the bytes, {MOST_TIME:g} of the time. A connection that fell silent is given "
            "up after 5 s. A kill costs what the line brings until the kernel has ended the process, nothing that was "
            "written."
        )
        when = f"Measured {time.strftime('%Y-%m-%d')}: {facts}."
        write_section(REPORT, "Pulls over a bad line", f"{head}\n\n{when}\n\n{table(found)}")


if __name__ == "__main__":
    main()
