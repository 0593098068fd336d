"""What the kernel counts of the whole machine and of its containers, read anew at each look."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from dom0.engine.protocol import Engine
from dom0.engine.values import Usage
from dom0.errors import EngineError
from dom0.names import HOST_ROOT

AT_ONCE = 8  # containers that the Engine is asked of
ANSWERED_WITHIN = 3.0  # seconds; then what is known is told
PROC = Path("/proc")  # memory, processors and load in it are the host's, in a container too
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # of /proc/stat, as proc(5) has them


class FileSystem(msgspec.Struct, frozen=True):
    path: str  # of the host
    size: int  # bytes
    available: int


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times seconds; what could not be read is 0 or empty."""

    memory: int = 0
    memory_available: int = 0
    load: float = 0.0  # of one minute
    booted: float = 0.0  # since the epoch
    processors: dict[str, float] = {}  # by mode
    file_systems: tuple[FileSystem, ...] = ()
    own_memory: int = 0  # the agent's
    own_processor: float = 0.0


class UsageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What counts up is told as it stands: two of them make a rate."""

    now: float  # the agent's clock when it was read
    machine: Vitals
    containers: dict[str, Usage]  # of services, those that run, by container ID


async def usages(engine: Engine, container_ids: Collection[str]) -> dict[str, Usage]:
    """Of those that are there and answered for in time, by their IDs: the Engine reads the control group of each."""
    free, used = asyncio.Semaphore(AT_ONCE), dict[str, Usage]()

    async def ask(container_id: str) -> None:
        async with free:
            with contextlib.suppress(EngineError):
                used[container_id] = await engine.usage(container_id)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWERED_WITHIN):
            await asyncio.gather(*map(ask, container_ids))
    return used


def look(paths: Sequence[Path], proc: Path = PROC) -> Vitals:
    """Of the file systems that have `paths` each once."""
    memory = {line[0]: int(line[1]) * 1024 for line in _words(proc / "meminfo")}
    counted = {words[0]: words[1:] for words in _words(proc / "stat")}
    modes = zip(MODES, counted.get("cpu", ()), strict=False)
    load = next(_words(proc / "loadavg"), ["0"])
    pages = next(_words(proc / "self" / "statm"), ["0", "0"])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Vitals(
        memory=memory.get("MemTotal:", 0),
        memory_available=memory.get("MemAvailable:", 0),
        load=float(load[0]),
        booted=float(counted.get("btime", ["0"])[0]),
        processors={mode: int(ticks) / os.sysconf("SC_CLK_TCK") for mode, ticks in modes},
        file_systems=tuple(file_systems(paths)),
        own_memory=int(pages[1]) * resource.getpagesize(),
        own_processor=usage.ru_utime + usage.ru_stime,
    )


def _words(path: Path) -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        yield from (line.split() for line in path.read_text().splitlines() if line)


def file_systems(paths: Sequence[Path]) -> Iterator[FileSystem]:
    """Those that have `paths`, each once."""
    seen = set[int]()
    for path in paths:
        with contextlib.suppress(OSError):  # not of this machine, or not for us
            device, found = path.stat().st_dev, os.statvfs(path)
            if device not in seen:
                seen.add(device)
                size, available = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
                yield FileSystem(str(path).removeprefix(str(HOST_ROOT)), size, available)
