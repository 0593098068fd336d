"""A machine of the base OS as far as its disks go: its own programs under busybox, real file systems, real devices.

Theory of operation: a directory holds what the base OS has, `os/tree` and the programs that it calls, as copies of
this machine's. A process holds namespaces in which that directory is the root, with a /dev and a /sys/class/block of
its own: what is plugged in is there under a name that the test chooses, and no other disk of this machine is to be
seen. The process reads a pipe that only we hold, so all mounts end with us; loop devices do as well (loop.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dom0.osimage import elf, recipe
from dom0.run import Output
from dom0.testing import loop, owned
from dom0.testing.busybox import BUSYBOX
from dom0.testing.namespaces import Child, spawn_inside, spawn_isolated

T = TypeVar("T")
_PROGRAMS = ("blkid", "e2fsck", "e2label", "mke2fs", "tune2fs")
_PATH = "/usr/sbin:/usr/bin:/sbin"
_DEADLINE = 60.0  # seconds that a program may take; they take less than one
_MIB = 1024 * 1024
_numbers = itertools.count()

# The console is a pipe with a reader that never sees its end, so that every program may open and close it.
_INIT = """
set -e
root=$1
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9"; do
    set -- $node
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
done
mkfifo "$root/dev/console"
exec 3<>"$root/dev/console"
: >"$root/run/console"
cat <&3 >>"$root/run/console" &
echo ready
cat >"$root/dev/null"
"""


def missing() -> str:
    """Why this machine cannot play a machine with disks; empty if it can."""
    programs = [name for name in (*_PROGRAMS, "strace") if shutil.which(name, path=_PATH) is None]
    if programs:
        return f"not installed: {', '.join(programs)}"
    return loop.missing() or ("" if BUSYBOX.exists() else f"not installed: {BUSYBOX} (busybox-static)")


class Disk:
    """A file that is a disk: `name` is what the machine calls it (`sda`)."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file

    def digest(self) -> str:
        with self.file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


class DiskMachine:
    """Use it as a context manager. `cmdline` is the kernel line, `settings` files below the root."""

    def __init__(self, cmdline: str = "") -> None:
        self.root = owned.run_root() / f"diskmachine{next(_numbers)}"
        self._loops: dict[str, loop.Loop] = {}
        self._children: list[Child] = []
        self._init: Child | None = None
        self.root.mkdir()
        asyncio.run(_lay(self.root))
        self.boot(cmdline)

    def __enter__(self) -> DiskMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()
        for attached in self._loops.values():
            attached.detach()
        owned.remove_directory(self.root)

    # power

    def boot(self, cmdline: str = "") -> None:
        """Start without any mount or memory of the last time; the disks are those that are plugged in."""
        self.power_off()
        self._init = spawn_isolated(
            [str(BUSYBOX), "sh", "-c", _INIT, "init", str(self.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"ready\n"
        for name, attached in self._loops.items():
            self._show(name, attached)
        self.contract(cmdline)

    def power_off(self) -> None:
        """As pulling the plug: everything in it ends, and its mounts with it."""
        if self._init is not None:
            self._init.kill()
            for child in self._children:  # the kernel lets their first process go when they are reaped
                child.wait()
            self._init.wait()
            for process in (*self._children, self._init):
                for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                    stream.close()
            self._children.clear()
            self._init = None

    def contract(self, settings: str) -> None:
        """The resolved boot contract, as `contract` leaves it: `data=ram format=blank`."""
        found = dict(pair.split("=", 1) for pair in settings.split())
        lines = {"data": "auto", "adopt": "ignore"} | found
        file = self.inside("/run/dom0/os/contract")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    def call_it(self, identity: str) -> None:
        """Give the machine the name that its firmware knows it by."""
        file = self.root / "sys/class/dmi/id/product_uuid"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{identity}\n")

    def install(self, *programs: str) -> None:
        """Programs of this machine, with what they need: large ones, which few tests ask for."""
        asyncio.run(_copy_programs(self.root, programs))

    # disks

    def blank(self, name: str, mib: int = 64) -> Disk:
        """Plug in a new disk with nothing but zeros."""
        file = self.root / f"{name}.disk"
        with file.open("wb") as opened:
            opened.truncate(mib * _MIB)
        return self.plug(name, file)

    def plug(
        self, name: str, file: Path, *, partitions: Sequence[tuple[int, int]] = (), read_only: bool = False
    ) -> Disk:
        """`partitions`: first MiB and number of MiB of each, as the disk's own table says."""
        assert name not in self._loops
        self._loops[name] = loop.Loop(file, read_only=read_only)
        for number, (first, size) in enumerate(partitions, 1):
            self._loops[name].add_partition(number, first * _MIB, size * _MIB)
        self._show(name, self._loops[name])
        return Disk(name, file)

    def unplug(self, name: str) -> None:
        self._loops.pop(name).detach()
        shutil.rmtree(self.root / "sys/class/block" / name)
        self.inside(f"/dev/{name}").unlink()

    def flush(self) -> None:
        for attached in self._loops.values():
            attached.flush()

    def _show(self, name: str, attached: loop.Loop) -> None:
        self._show_device(name, attached.number, attached.file.stat().st_size)
        for number, device in attached.partitions.items():
            sectors = int(Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size").read_text())
            self._show_device(f"{name}{number}", device, sectors * 512, partition=number, of=name)

    def _show_device(self, name: str, device: int, size: int, *, partition: int = 0, of: str = "") -> None:
        node = self.inside(f"/dev/{name}")
        if not node.exists():
            os.mknod(node, stat.S_IFBLK | 0o600, device)
        known = {"size": f"{size // 512}", "dev": f"{os.major(device)}:{os.minor(device)}", "removable": "0"}
        if partition:
            known |= {"partition": f"{partition}"}
        for directory in filter(None, (name, of and f"{of}/{name}")):
            entry = self.root / "sys/class/block" / directory
            entry.mkdir(parents=True, exist_ok=True)
            for key, value in known.items():
                (entry / key).write_text(f"{value}\n")

    # programs

    def inside(self, path: str) -> Path:
        """Where its absolute `path` is reached from outside, mounts too."""
        assert self._init is not None
        return Path(f"/proc/{self._init.pid}/root{self.root}{path}")

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> Output:
        child = self.start(*argv)
        with child:
            stdout, stderr = child.communicate(stdin.encode(), _DEADLINE)
        output = Output(child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
        assert output.code == 0 or not check, f"{argv}: {output}"
        return output

    def start(self, *argv: str) -> Child:
        assert self._init is not None
        pipe = subprocess.PIPE
        chroot = [str(BUSYBOX), "chroot", str(self.root), "/usr/bin/env", "-i", *argv]
        child = spawn_inside(self._init.pid, chroot, stdin=pipe, stdout=pipe, stderr=pipe)
        self._children.append(child)
        return child

    def disk(self, *arguments: str, stdin: str = "", check: bool = True) -> Output:
        return self.run("/usr/lib/dom0/disk", *arguments, stdin=stdin, check=check)

    def survey(self) -> dict[str, Any]:
        """Device -> what `disk survey` found of it."""
        self.disk("survey")
        return {device["device"]: device for device in self.document()["devices"]}

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.inside("/run/dom0/os/disks.json").read_bytes())
        return document

    def until(self, condition: Callable[[], T]) -> T:
        """What it returns once that is true; a file that is not there yet is not."""
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                if found := condition():
                    return found
            except (OSError, ValueError):
                pass
            assert time.monotonic() < deadline, f"it never came to that; the console: {self.console()}"
            time.sleep(0.02)

    def console(self, until: str = "") -> str:
        """What was said on it; `until` it holds that text, because it comes through a pipe."""
        deadline = time.monotonic() + _DEADLINE
        while until not in (said := self.inside("/run/console").read_text()):
            assert time.monotonic() < deadline, f"the console never said {until!r}, but: {said}"
            time.sleep(0.02)
        return said

    def mounts(self) -> dict[str, str]:
        """Mount point -> device, as the machine sees them."""
        rows = [line.split(" ") for line in self.run("/usr/bin/cat", "/proc/mounts").stdout.splitlines()]
        return {row[1]: row[0] for row in rows}


async def _lay(root: Path) -> None:
    """What the base OS has of what disks need, with this machine's programs and libraries."""
    os_recipe = recipe.load()
    for directory in ("data", "dev", "etc", "mnt", "proc", "run", "sys", "tmp", "usr/bin", "usr/sbin", "var/lib"):
        (root / directory).mkdir(parents=True)
    shutil.copytree(os_recipe.directory / "tree", root, dirs_exist_ok=True)
    shutil.copy2(BUSYBOX, root / "usr/bin/busybox")
    shutil.copy2("/etc/mke2fs.conf", root / "etc/mke2fs.conf")
    await _copy_programs(root, _PROGRAMS)
    for path, target in os_recipe.links.items():
        if path in ("bin", "lib", "lib64", "sbin"):
            (root / path).symlink_to(target)
    for applet in os_recipe.applets:
        if not any((root / directory / applet).exists() for directory in ("usr/bin", "usr/sbin")):
            (root / "usr/bin" / applet).symlink_to("busybox")


async def _copy_programs(root: Path, names: Sequence[str]) -> None:
    architecture = recipe.load().architecture
    for name in names:
        found = shutil.which(name, path=_PATH)
        assert found is not None, name
        shutil.copy2(found, root / "usr/sbin" / name)
    directory, loader = Path(architecture.libraries), Path(architecture.loader).name
    needed = await elf.libraries([root / "usr/sbin" / name for name in names], "/" / directory)
    for library in (*needed, Path("/") / directory / loader):
        target = root / ("usr/lib64" if library.name == loader else directory) / library.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)
