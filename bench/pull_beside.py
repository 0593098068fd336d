"""`make bench-pull`, second part: `dom0 image pull` beside the Engine's own pull and skopeo, in turns on one machine.

Registry, line and Engine are in the namespaces of one host. `--store` and `--only WORD` take a part of it; then nothing
is written.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median

import msgspec

from bench.report import REPORT, write_section
from bench.tools import DOM0
from dom0.run import CommandFailed
from dom0.testing import owned
from dom0.testing.debian_registry import DebianRegistry
from dom0.testing.fault_proxy import Faults
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host

MB = 10**6
LAYERS = (30 * MB, 22 * MB, 12 * MB, 4 * MB)  # about, packed
EACH = 8 << 20
LONGEST = 240.0  # seconds for one pull
MOST = 1.2  # of the Engine's own time, on a clean line
STORES = {"overlay2": OWN_STORE, "containerd": CONTAINERD_STORE}
SKOPEO = ("skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--quiet")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    faults: Faults
    rounds: int = 1


LINES = (
    Line(name="clean, as fast as this machine is", faults=Faults(), rounds=9),
    Line(name="clean, 20 MB/s", faults=Faults(rate=20e6), rounds=3),
    Line(name="5 MB/s, reset every 8 MiB", faults=Faults(every_bytes=EACH, how="reset", rate=5e6)),
    Line(
        name="5 MB/s, closed every 8 MiB, then refused for 3 s",
        faults=Faults(every_bytes=EACH, rate=5e6, refuse=3),
    ),
)


class Pulled(msgspec.Struct, frozen=True):
    seconds: float
    sent: int  # bytes, by the line
    is_there: bool


class Found(msgspec.Struct, frozen=True, kw_only=True):
    line: str
    store: str
    size: int  # bytes of the image, as it is sent
    ways: dict[str, list[Pulled]]


def ways(reference: str) -> dict[str, tuple[str, ...]]:
    """Commands after which the Engine has the image."""
    return {
        "dom0": (DOM0, "image", "pull", "--json", reference),
        "docker pull": ("docker", "pull", "--quiet", reference),
        "skopeo": (*SKOPEO, f"docker://{reference}", f"docker-daemon:{reference}"),
    }


def measure(host: Host, registry: DebianRegistry, line: Line, store: str, size: int) -> Found:
    found: dict[str, list[Pulled]] = {way: [] for way in ways("")}
    for number in range(line.rounds):
        for way in list(found)[:: -1 if number % 2 else 1]:
            found[way].append(pulled(host, registry, line.faults, way))
    return Found(line=line.name, store=store, size=size, ways=found)


def pulled(host: Host, registry: DebianRegistry, faults: Faults, way: str) -> Pulled:
    port = registry.host.rpartition(":")[2]
    argv = [sys.executable, "-m", "dom0.testing.fault_proxy", port, msgspec.json.encode(faults).decode()]
    with host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reference = f"127.0.0.1:{process.stdout.readline().decode().strip()}/team/app:1"
        began = time.monotonic()
        try:
            host.run(ways(reference)[way], timeout=LONGEST)
        except CommandFailed as error:
            print(f"{way}: {error}"[-300:], flush=True)
        seconds = time.monotonic() - began
        process.stdin.close()
        sent = int(process.stdout.readline())
    is_there = host.docker("image", "inspect", reference, check=False).code == 0
    if is_there:
        host.docker("image", "rm", "--force", reference)
    host.run(["rm", "-rf", "/var/lib/dom0/pull"])
    os.sync()
    return Pulled(seconds, sent, is_there)


@contextmanager
def machine(store: str) -> Iterator[tuple[Host, DebianRegistry, int]]:
    random = Random(3)  # noqa: S311 -- no secret
    with (
        Host(name="pulls", config=STORES[store]) as host,
        tempfile.TemporaryDirectory(prefix="dom0-bench-", dir="/var/tmp") as directory,
        DebianRegistry(Path(directory) / "registry", popen=host.popen) as registry,
    ):
        # Digits of random numbers: half of that is left when they are packed, about as of programs.
        files = [{f"layer{size}": random.randbytes(size * 9 // 10).hex().encode()} for size in LAYERS]
        registry.content.image("team/app", "1", files)
        blobs = registry.content.directory.rglob("data")
        yield host, registry, sum(blob.stat().st_size for blob in blobs)


def table(found: Sequence[Found]) -> str:
    names = list(found[0].ways)
    lines = [
        f"| line | images are kept by | {' | '.join(names)} | of docker pull's time | to reach | |",
        f"|---|---|{'---:|' * len(names)}---:|---:|---|",
    ]
    for each in found:
        cells = [cell(each.ways[name], each.size) for name in names]
        share, goal, verdict = "", "", ""
        if all(pull.is_there for pull in each.ways["docker pull"]):
            share = f"{(ratio := seconds(each.ways['dom0']) / seconds(each.ways['docker pull'])):.2f}"
            if each.line.startswith("clean"):
                goal, verdict = f"≤ {MOST:g}", "yes" if ratio <= MOST else "**no**"
        lines.append(f"| {each.line} | {each.store} | {' | '.join(cells)} | {share} | {goal} | {verdict} |")
    return "\n".join(lines)


def seconds(pulls: Sequence[Pulled]) -> float:
    return median(each.seconds for each in pulls)


def cell(pulls: Sequence[Pulled], size: int) -> str:
    sent = median(each.sent for each in pulls) / size
    failed = "" if all(each.is_there for each in pulls) else "**fails** after "
    return f"{failed}{seconds(pulls):.1f} s, sent {sent:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pull_beside", description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--store", choices=STORES)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # our own commands keep their byte code, as anybody's do
    owned.sweep()
    found = []
    for store in STORES if arguments.store is None else (arguments.store,):
        with machine(store) as (host, registry, size):
            for line in LINES:
                if arguments.only in line.name:
                    found.append(measure(host, registry, line, store, size))
                    print(table(found[-1:]).splitlines()[-1], flush=True)
    if not arguments.only and arguments.store is None:
        write(found)


def write(found: Sequence[Found]) -> None:
    head = (
        "`make bench-pull` writes this part as well: an image of four layers from Debian's docker-registry into a "
        "Docker Engine on the same machine, by `dom0 image pull`, the Engine's own pull, and `skopeo copy` to "
        "`docker-daemon:`, in turns. Clean lines nine times and three times, of which the medians count. **Sent** is "
        "what the line carried, of the image's size. `dom0` has the whole start of a Python program in it."
    )
    facts = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    when = f"Measured {time.strftime('%Y-%m-%d')}: {facts}; {found[0].size / MB:.0f} MB."
    write_section(REPORT, "Pulls beside the Engine's own", f"{head}\n\n{when}\n\n{table(found)}")


if __name__ == "__main__":
    main()
