"""The two virtual machines that `make bench-boot` compares: one way to load them, one set of devices, one observer."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from bench.observed import Heard
from bench.plain_debian import SERIAL, PlainDebian
from dom0.host import boot, boot_record
from dom0.host.boot import Stage
from dom0.host.boot_record import Record
from dom0.osimage import medium, prepared
from dom0.testing import data_disk

MEMORY = 1024  # MiB
OBSERVER = Path(__file__).with_name("observer.c")
PREPARED, LOADED = "prepared images", "images that are loaded"
_CONSOLE = "console=ttyS0 quiet loglevel=4 panic=-1"
_BOOTLOCAL = f"/var/lib/dom0/observer {SERIAL} </dev/null >/dev/null 2>&1 &\n"
# The record of the boot, a line as soon as it is there; nobody else writes to that port.
_RECORD_TO_SERIAL = "tail -n +1 -f /run/dom0/boot.record </dev/null >/dev/ttyS2 2>/dev/null &\n"
_PAUSE = 0.1  # seconds between two looks


@dataclass(frozen=True)
class System:
    name: str
    linux: Path
    initrd: Path
    command_line: str
    disk: Path
    medium: Path | None = None


def build_observer(into: Path) -> Path:
    """A program without libraries: both machines get the same file."""
    program = into / "observer"
    subprocess.run(["gcc", "-static", "-Os", "-s", "-Wall", "-o", str(program), str(OBSERVER)], check=True)
    return program


def dom0_system(base_os: Path, data: Path, observer: Path, into: Path) -> System:
    """The base OS with a copy of the disk `data`, where the owner's program starts the observer."""
    disk = _copied(data, into / "dom0.ext4")
    script = into / "bootlocal.sh"
    script.write_text(_BOOTLOCAL)
    for file, name in ((observer, "observer"), (script, "bootlocal.sh")):
        subprocess.run(["debugfs", "-w", "-R", f"write {file} /var/lib/dom0/{name}", str(disk)], check=True)
    return System("dom0", base_os / "linux", base_os / "initrd", f"{_CONSOLE} dom0.medium=none", disk)


def dom0_from_medium(base_os: Path, archive: Path, observer: Path, into: Path) -> tuple[System, System]:
    """The base OS with an empty disk, and `archive` on the medium it boots from: prepared, and as it is."""
    tree = into / "tree" / "var" / "lib" / "dom0"
    tree.mkdir(parents=True)
    shutil.copy(observer, tree)
    (tree / "bootlocal.sh").write_text(f"{_BOOTLOCAL}{_RECORD_TO_SERIAL}")
    disk = into / "empty.ext4"
    data_disk.write(disk, into / "tree")
    (into / "scratch").mkdir()
    files = {"image.tar": archive, "image.store": asyncio.run(prepared.prepare(archive, into / "scratch"))}
    linux, initrd = base_os / "linux", base_os / "initrd"
    with_store = _medium(into / "prepared.fat", files)
    without = _medium(into / "loaded.fat", {"image.tar": archive})
    return (
        System(PREPARED, linux, initrd, _CONSOLE, disk, with_store),
        System(LOADED, linux, initrd, _CONSOLE, disk, without),
    )


def _medium(fat: Path, files: Mapping[str, Path]) -> Path:
    size = sum(file.stat().st_size for file in files.values()) // 1024 + 16 * 1024  # KiB, as mkfs.vfat counts
    subprocess.run(["mkfs.vfat", "-n", medium.LABEL, "-C", str(fat), str(size)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mmd", "-i", str(fat), "::dom0"], check=True)
    for name, file in files.items():
        subprocess.run(["mcopy", "-i", str(fat), str(file), f"::dom0/{name}"], check=True)
    return fat


def debian_system(plain: PlainDebian, into: Path) -> System:
    disk = _copied(plain.disk, into / "debian.ext4")
    return System("plain Debian", plain.linux, plain.initrd, f"{_CONSOLE} root=/dev/vda ro", disk)


def _copied(disk: Path, to: Path) -> Path:
    subprocess.run(["cp", "--sparse=always", str(disk), str(to)], check=True)
    return to


class Switched:
    """A machine that was switched on. `heard` grows while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], control: Path, record: Path) -> None:
        self._process = process
        self._control = control
        self._record = record
        self._began = time.monotonic()
        self.heard: list[Heard] = []
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def stages(self) -> tuple[Stage, ...]:
        """What it has gone through so far, by its own clock; none where it does not pass on the record of its boot."""
        marks, _ = boot_record.parse(self._record.read_bytes().replace(b"\r", b""))
        return boot.analyze(Record(marks=marks)).stages

    def wait(self, condition: Callable[[list[Heard]], bool], *, within: float) -> bool:
        """False if it ended before, or did not come to it within that many seconds since it was switched on."""
        while not condition(self.heard):
            if self._process.poll() is not None or time.monotonic() - self._began > within:
                return False
            time.sleep(_PAUSE)
        return True

    def press_power_button(self, *, within: float = 120.0) -> None:
        """And wait until it is off. Raises subprocess.TimeoutExpired."""
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as talk:
            connection.connect(str(self._control))
            for order in ("qmp_capabilities", "system_powerdown"):
                talk.write(json.dumps({"execute": order}) + "\n")
                talk.flush()
                while "return" not in json.loads(talk.readline()):
                    pass
            self._process.wait(within)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.heard.append(Heard(time.monotonic() - self._began, line.decode(errors="replace").strip()))


@contextmanager
def switched_on(system: System, scratch: Path, *, memory: int = MEMORY, keep: bool = False) -> Iterator[Switched]:
    """`keep`: what it writes to its disk stays there, else every machine finds the same."""
    control, record = scratch / "control", scratch / "record"
    control.unlink(missing_ok=True)
    record.write_bytes(b"")
    argv = [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", str(memory), "-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot"),
        *("-kernel", str(system.linux), "-initrd", str(system.initrd), "-append", system.command_line),
        *("-drive", f"file={system.disk},if=virtio,format=raw,snapshot={'off' if keep else 'on'}"),
        *(("-drive", f"file={system.medium},if=virtio,format=raw,readonly=on") if system.medium else ()),
        *("-nic", "user,model=virtio-net-pci", "-device", "virtio-rng-pci"),
        *("-serial", f"file:{scratch / 'console'}", "-serial", "stdio", "-serial", f"file:{record}"),
        *("-qmp", f"unix:{control},server=on,wait=off"),
    ]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    machine = Switched(process, control, record)
    try:
        yield machine
    finally:
        machine.end()
