"""`make bench-boot`: a machine with the base OS beside a plain Debian with the same services; its part of
docs/benchmarks.md.

Two virtual machines with the same devices, memory and processors take turns. QEMU loads kernel and initramfs of both,
so no boot loader is in it. Each has been started and switched off once before, so what is measured are later boots.

Done in parts, all in this order where none is named, so that each can be measured while nothing else runs. A part that
needs an earlier one says so:

    prepare    makes the base OS, the plain Debian and the disks, and forgets what was measured; no times
    first      the first boot of both, once, whose disks the later boots begin with
    boots      one more later boot of both
    media      one more first boot with a medium, prepared and not
    floor      the least memory of both; no times
    report     writes what was measured, once there are three of each
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench import boot_machines, observed, plain_debian
from bench.boot_machines import LOADED, MEMORY, PREPARED, Switched, System, switched_on
from bench.observed import Heard
from bench.report import REPORT, Row, at_most, at_most_ratio, table, write_section
from dom0.host.boot import SERVICE
from dom0.osimage import build, recipe
from dom0.testing import data_disk

SERVICES = ("mybox-redis-1", "mybox-visitor-1")
WATCHED = ("mybox-redis-1",)  # those with a health check
_PATIENCE = 900.0  # seconds for one boot, on a busy machine
_DEADLINE = 180.0  # the same with little memory; what takes longer does not come up
_STEP = 16  # MiB
_LEAST, _MOST = 256, 512  # MiB: an initramfs like ours does not fit in the first, all comes up with the second
_GOAL, _SIZE, _FLOOR = 0.55, 90, 384
_HALF = 0.5  # of the time to load images
_RUNS = 3
_PARTS_OF_ALL = ("prepare", "first", *_RUNS * ("boots",), *_RUNS * ("media",), "floor", "report")
# Of a boot with a medium: stages of its record that are shown as one.
_IMAGES = "images of the medium"
_PARTS = {
    "kernel until data disk": ("kernel", "init", "drivers", "disk"),
    _IMAGES: ("images",),
    "Engine": ("engine",),
    "dom0": ("image", "dom0"),
}


@dataclass(frozen=True)
class Boot:
    """Seconds since the machine was switched on."""

    engine: float
    services: float
    healthy: float
    dom0: float | None


@dataclass(frozen=True)
class FirstBoot:
    """Of a machine with an empty disk: seconds until all services run, and what each part of it took."""

    services: float
    parts: dict[str, float]


Media = dict[str, list[FirstBoot]]


class Measured(msgspec.Struct):
    """So far, in SCRATCH; by the names of systems where nothing else is said."""

    kernel: str
    sizes: dict[str, int]  # bytes
    systems: tuple[System, System]
    from_medium: tuple[System, System]
    first: dict[str, Boot] = {}
    boots: dict[str, list[Boot]] = {}
    media: Media = {}
    floors: dict[str, int] = {}  # MiB


SCRATCH = data_disk.DISKS / "bench-boot"
_FILE = SCRATCH / "measured.json"


def _boot_of(heard: Iterable[Heard]) -> Boot | None:
    """None while it is not over."""
    heard = list(heard)
    found = observed.events(heard)
    engine = observed.engine_answers(heard)
    services, healthy = observed.all_run(found, SERVICES), observed.all_healthy(found, WATCHED)
    if engine is None or services is None or healthy is None:
        return None
    return Boot(engine, services, max(services, healthy), observed.all_run(found, ["dom0"]))


def _measure(system: System, scratch: Path) -> Boot:
    with switched_on(system, scratch) as machine:
        return _wait(machine, system)


def _wait(machine: Switched, system: System) -> Boot:
    machine.wait(lambda heard: _boot_of(heard) is not None, within=_PATIENCE)
    boot = _boot_of(machine.heard)
    if boot is None:
        raise RuntimeError(f"{system.name}: its services are not healthy after {_PATIENCE:.0f} s")
    return boot


def _first_boot(system: System, scratch: Path) -> Boot:
    """And the state that later boots begin with."""
    with switched_on(system, scratch, keep=True) as machine:
        boot = _wait(machine, system)
        machine.press_power_button()
    return boot


def _measure_medium(system: System, number: int) -> FirstBoot:
    with switched_on(system, SCRATCH) as machine:
        boot = _told(f"run {number}", system, _wait(machine, system))
        stages = machine.stages()
    parts = {part: sum(one.seconds for one in stages if one.name in names) for part, names in _PARTS.items()}
    parts["services"] = max(one.seconds for one in stages if one.name.startswith(SERVICE))
    print(*(f"    {part} {seconds:.2f} s" for part, seconds in parts.items()), sep="\n", flush=True)
    return FirstBoot(boot.services, parts)


def _floor(system: System, scratch: Path) -> int:
    """The least memory, in MiB, with which it comes up."""

    def comes_up(memory: int) -> bool:
        with switched_on(system, scratch, memory=memory) as machine:
            up = machine.wait(lambda heard: _boot_of(heard) is not None, within=_DEADLINE)
        print(f" ok {system.name} with {memory} MiB: {'comes up' if up else 'does not come up'}", flush=True)
        return up

    return _least(comes_up, _LEAST, _MOST, _STEP)


def _least(is_enough: Callable[[int], bool], too_little: int, enough: int, step: int) -> int:
    """The least amount above `too_little` that is enough, where `enough` is known to be."""
    while enough - too_little > step:
        middle = too_little + (enough - too_little) // (2 * step) * step
        if is_enough(middle):
            enough = middle
        else:
            too_little = middle
    return enough


def _rows(dom0: list[Boot], debian: list[Boot], sizes: dict[str, int], floors: dict[str, int]) -> Iterator[Row]:
    def compare(what: str, of: Callable[[Boot], float]) -> Row:
        return at_most_ratio(what, [of(one) for one in dom0], [of(one) for one in debian], "plain Debian", _GOAL)

    yield compare("power-on until the Engine answers", lambda boot: boot.engine)
    yield Row("power-on until dom0 runs", [boot.dom0 for boot in dom0 if boot.dom0 is not None])
    yield compare("power-on until all services run", lambda boot: boot.services)
    yield compare("power-on until all services are healthy", lambda boot: boot.healthy)
    yield at_most("size: the base OS as one file, without the rescue image", [sizes["bare"] / 1e6], _SIZE, "MB")
    used = [sizes["debian"] / 1e6]
    yield Row("size: all but the Engine's store", [sizes["uki"] / 1e6], used, "plain Debian", unit="MB")
    dom0_floor, debian_floor = [float(floors["dom0"])], [float(floors["plain Debian"])]
    reached = dom0_floor[0] <= _FLOOR
    yield Row("least memory", dom0_floor, debian_floor, "plain Debian", "MiB", f"≤ {_FLOOR} MiB", reached)


def _rows_of_media(media: Media) -> Iterator[Row]:
    ours, theirs = media[PREPARED], media[LOADED]
    what = "first boot with a medium: until all services run"
    yield Row(what, [one.services for one in ours], [one.services for one in theirs], LOADED)
    prepared, loaded = ([one.parts[_IMAGES] for one in boots] for boots in (ours, theirs))
    yield at_most_ratio("of that: the images of the medium", prepared, loaded, LOADED, _HALF)


def _shares(media: Media) -> str:
    lines = [f"| stage of a first boot with a medium | {PREPARED} | | {LOADED} | |", "|---|---:|---:|---:|---:|"]
    medians = [{part: median(one.parts[part] for one in boots) for part in boots[0].parts} for boots in media.values()]
    for part in medians[0]:
        cells = (f"{one[part]:.1f} s | {one[part] / sum(one.values()):.0%}" for one in medians)
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _report(rows: list[Row], first: dict[str, Boot], shares: str, kernel: str, runs: int) -> str:
    return "\n\n".join(
        [
            _INTRODUCTION,
            f"Measured {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores, Linux {platform.release()}, QEMU "
            f"without KVM (`tcg,thread=multi`), 2 processors, {MEMORY} MiB; Debian's kernel "
            f"{kernel} in both; medians of {runs} runs.",
            table(rows),
            shares,
            f"The first boot, where dom0 finds only images and makes every container: all services run after "
            f"{first['dom0'].services:.1f} s. Of the plain Debian, which has its containers: "
            f"{first['plain Debian'].services:.1f} s.",
        ]
    )


def prepare() -> Measured:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    built = asyncio.run(build.build(recipe.load(), lambda line: print(f"... {line}", flush=True)))
    observer = boot_machines.build_observer(SCRATCH)
    plain = plain_debian.provide(observer)
    uki = (built.directory / build.UKI).stat().st_size
    data = data_disk.provide(started=False)
    return Measured(
        built.manifest.kernel,
        {"uki": uki, "bare": uki - built.manifest.rescue, "debian": plain.used},
        (
            boot_machines.dom0_system(built.directory, data, observer, SCRATCH),
            boot_machines.debian_system(plain, SCRATCH),
        ),
        boot_machines.dom0_from_medium(built.directory, data_disk.provide_archive(), observer, SCRATCH),
    )


def go_on(part: str, measured: Measured) -> None:
    """Adds what `part` measures."""
    for system in measured.from_medium if part == "media" else measured.systems:
        match part:
            case "first":
                measured.first[system.name] = _told("first boot", system, _first_boot(system, SCRATCH))
            case "boots":
                boots = measured.boots.setdefault(system.name, [])
                boots.append(_told(f"run {len(boots) + 1}", system, _measure(system, SCRATCH)))
            case "media":
                found = measured.media.setdefault(system.name, [])
                found.append(_measure_medium(system, len(found) + 1))
            case "floor":
                measured.floors[system.name] = _floor(system, SCRATCH)


def report(measured: Measured) -> str:
    boots, media = measured.boots, measured.media
    rows = [*_rows(boots["dom0"], boots["plain Debian"], measured.sizes, measured.floors), *_rows_of_media(media)]
    runs = min([*map(len, boots.values()), *map(len, media.values())])
    return _report(rows, measured.first, _shares(media), measured.kernel, runs)


def due(part: str, measured: Measured | None) -> list[str]:
    """The parts that have to come before `part`."""
    if part == "prepare":
        return []
    if measured is None:
        return ["prepare"]
    if part == "first" and measured.first:
        return ["prepare"]  # what its disks began with is gone
    if part in ("boots", "floor", "report") and not measured.first:
        return ["first"]
    if part == "report":
        runs = {name: min(map(len, getattr(measured, name).values()), default=0) for name in ("boots", "media")}
        more = [name for name, number in runs.items() for _ in range(number, _RUNS)]
        return more if measured.floors else [*more, "floor"]
    return []


def _told(what: str, system: System, boot: Boot) -> Boot:
    dom0 = f"dom0 {boot.dom0:.2f} s, " if boot.dom0 is not None else ""
    times = f"Engine {boot.engine:.2f} s, {dom0}services {boot.services:.2f} s, healthy {boot.healthy:.2f} s"
    print(f" ok {what}, {system.name}: {times}", flush=True)
    return boot


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.boot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*_PARTS_OF_ALL, []])  # argparse looks for [], too
    for part in parser.parse_args().parts or _PARTS_OF_ALL:
        measured = _read()
        if before := due(part, measured):
            raise SystemExit(f"bench.boot: {part}: first run: python -m bench.boot {' '.join(before)}")
        if part == "prepare":
            measured = prepare()
        assert measured is not None
        if part == "report":
            text = report(measured)
            print(text)
            write_section(REPORT, "Booting", text)
            continue
        if part == "first":
            _FILE.unlink(missing_ok=True)  # cut off, it leaves disks that nothing can begin with
        go_on(part, measured)
        _FILE.write_bytes(msgspec.json.encode(measured, enc_hook=str))


def _read() -> Measured | None:
    """None before all is prepared."""

    def path(kind: type, text: Any) -> Path:
        return Path(text)

    return msgspec.json.decode(_FILE.read_bytes(), type=Measured, dec_hook=path) if _FILE.exists() else None


_INTRODUCTION = """\
`make bench-boot` writes this part. Two virtual machines with the same devices take turns: one with the base OS, and a
plain Debian that a person would install instead: systemd, the same kernel, the same Docker Engine, an OpenSSH server.
Both have the services of `examples/mybox`; there dom0 keeps them running, here the Engine starts what `docker compose
up` has made once.

- QEMU loads kernel and initramfs of both: no boot loader is in the times. They are later boots: each machine was
  started and switched off once before, and every run finds the disk as it was then.
- A small program in both machines passes on what the Engine says of its containers, to a serial port; the times are
  those of the machine outside. What the Engine started before it answered has the Engine's own time: at its start the
  Engine restarts containers first and answers afterwards, so services run before it answers.
- dom0 also starts a login and its agent, which the plain Debian does not have in containers. After a power-off the
  agent comes last, when the services run; after a power cut it starts beside them.
- **healthy**: the health check of redis, which the Engine runs for the first time ten seconds after the start. That
  constant is in both, so the ratio says little.
- **first boot with a medium**: the data disk is empty, the images of `examples/mybox` lie on the medium, in turns as
  `dom0 os write` [prepares](launcher.md#the-image-on-the-boot-medium) them, and the archive alone, which the Engine
  loads. What each stage took is from the machine's own [boot record](boot.md).
- **least memory**: between 272 and 512 MiB, in steps of 16, without swap; all services have to be healthy within three
  minutes. The base OS has its files in memory, the plain Debian on a disk.
  272 means that it may do with less."""

if __name__ == "__main__":
    main()
