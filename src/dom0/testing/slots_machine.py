"""A machine of the base OS as far as its boot medium goes: its own program `slots` under busybox, a mounted medium.

Theory of operation: a directory holds `os/tree` and busybox; a process holds namespaces in which the medium, a file
system in a file, is mounted there. This kernel may have no FAT, so the medium is ext2: without a journal as well. A
power cut is a copy of the file as it is at that instant, which then belongs to a machine that starts from it: what was
not yet written to the device is not in it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path

from dom0.host.uki import BootFile
from dom0.osimage import grub_environment, medium, recipe
from dom0.run import Output
from dom0.testing import owned
from dom0.testing.busybox import BUSYBOX
from dom0.testing.hosts import Host
from dom0.testing.namespaces import Child, spawn_inside, spawn_isolated

_SIZE = "64M"
_DEADLINE = 60.0  # seconds that a program may take
_numbers = itertools.count()

_INIT = """
set -e
root=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/run/dom0/os"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
mknod "$root/dev/zero" c 1 5
mknod "$root/dev/null" c 1 3
mount -o loop,rw -t ext2 "$2" "$root/medium" # a loop device that is made for reading stays so
mount -o remount,ro "$root/medium"
: >"$root/dev/console"
echo ready
cat >"$root/dev/null"
"""


def missing() -> str:
    """Why this machine cannot play one with a boot medium; empty if it can."""
    programs = [name for name in ("mke2fs", "e2fsck") if shutil.which(name, path="/usr/sbin:/sbin") is None]
    if programs:
        return f"not installed: {', '.join(programs)}"
    if not BUSYBOX.exists():
        return f"not installed: {BUSYBOX} (busybox-static)"
    attached = subprocess.run(["losetup", "--find"], check=False, capture_output=True, text=True)
    return "" if attached.returncode == 0 else f"no loop device: {attached.stderr.strip()}"


class SlotsMachine:
    """Started from slot a, which is good. Use it as a context manager. `host`: whose namespaces it is in, and which has
    to be stopped first; without one it has its own.
    """

    def __init__(
        self, *, running: str = "a", trial: int = 0, snapshot: Path | None = None, host: Host | None = None
    ) -> None:
        self.root = owned.run_root() / f"slots{next(_numbers)}"
        self.file = self.root / "medium.img"
        self.root.mkdir()
        self._lay()
        if snapshot:
            shutil.copyfile(snapshot, self.file)
            subprocess.run(["/usr/sbin/e2fsck", "-p", self.file], check=False, capture_output=True)
        else:
            self._make_medium()
        argv = [str(BUSYBOX), "sh", "-c", _INIT, "init", str(self.root), str(self.file)]
        start = host.popen if host else spawn_isolated
        self._init = start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"ready\n"
        self.tell(running, trial)

    def __enter__(self) -> SlotsMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self._init.kill()
        self._init.wait()
        for stream in (self._init.stdin, self._init.stdout):
            assert stream is not None
            stream.close()
        owned.remove_directory(self.root)

    def tell(self, running: str, trial: int = 0) -> None:
        """Which slot GRUB has started, as the boot contract says it; "": none."""
        slot = f"slot={running}\n" if running else ""
        settings = f"ip=dhcp\n{slot}{f'trial={trial}' if trial else ''}\n"
        self.inside("/run/dom0/os/contract").write_text(settings)

    def inside(self, path: str) -> Path:
        """Where its absolute `path` is reached from outside, mounts too."""
        return Path(f"/proc/{self._init.pid}/root{self.root}{path}")

    def start(self, *arguments: str, stdin: Path | None = None, program: str = "slots") -> Child:
        argv = [str(BUSYBOX), "chroot", str(self.root), "/usr/bin/env", "-i", f"/usr/lib/dom0/{program}", *arguments]
        with (stdin or Path(os.devnull)).open("rb") as opened:
            return spawn_inside(self._init.pid, argv, stdin=opened, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def slots(self, *arguments: str, stdin: Path | None = None) -> Output:
        return self.run("slots", *arguments, stdin=stdin)

    def run(self, program: str, *arguments: str, stdin: Path | None = None) -> Output:
        with self.start(*arguments, stdin=stdin, program=program) as child:
            stdout, stderr = child.communicate(timeout=_DEADLINE)
        return Output(child.returncode, stdout.decode(), stderr.decode())

    def kill(self, child: Child) -> None:
        """The program and all that it has started."""
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()

    def cut_power(self, child: Child, snapshot: Path) -> None:
        """What a machine would find that starts after the power was cut now; `child` is not of this world any more."""
        os.killpg(child.pid, signal.SIGSTOP)
        shutil.copyfile(self.file, snapshot)
        self.kill(child)

    def environment(self) -> dict[str, str]:
        return grub_environment.decode(self.inside("/medium/dom0/grubenv").read_bytes())

    def is_read_only(self) -> bool:
        return bool(os.statvfs(self.inside("/medium")).f_flag & os.ST_RDONLY)

    def read(self, slot: str, name: str) -> bytes:
        return self.inside(f"/medium/dom0/{slot}/{name}").read_bytes()

    def holds(self, slot: str) -> list[str]:
        directory = self.inside(f"/medium/dom0/{slot}")
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def flip_bit(self, slot: str, name: str) -> None:
        """One bit of that file, in its middle."""
        data = bytearray(self.read(slot, name))
        data[len(data) // 2] ^= 1
        self.write(f"dom0/{slot}/{name}", bytes(data))

    def write_environment(self, **variables: str) -> None:
        """As GRUB does at boot."""
        block = grub_environment.encode(self.environment() | variables)
        self._remount("rw")
        self.inside("/medium/dom0/grubenv").write_bytes(block)
        self._remount("ro")

    def damage(self, name: str) -> None:
        self.write(name, b"damaged")

    def write(self, name: str, content: bytes) -> None:
        """A file on the medium, as a person would at another machine."""
        self._remount("rw")
        self.inside(f"/medium/{name}").write_bytes(content)
        self._remount("ro")

    def _remount(self, how: str) -> None:
        argv = [str(BUSYBOX), "mount", "-o", f"remount,{how}", f"{self.root}/medium"]
        with spawn_inside(self._init.pid, argv) as child:
            assert child.wait() == 0

    def _lay(self) -> None:
        os_recipe = recipe.load()
        shutil.copytree(os_recipe.directory / "tree", self.root, symlinks=True, dirs_exist_ok=True)
        for directory in ("dev", "medium", "proc", "run", "tmp", "usr/bin", "usr/sbin", "var/lib/dom0"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        shutil.copy2(BUSYBOX, self.root / "usr/bin/busybox")
        for applet in os_recipe.applets:
            (self.root / "usr/bin" / applet).symlink_to("busybox")
        (self.root / "bin").symlink_to("usr/bin")
        (self.root / "etc/dom0-os").write_text("1.0\n")

    def _make_medium(self) -> None:
        tree = self.root / "medium-tree"
        files = [BootFile("dom0/grubenv", grub_environment.encode(grub_environment.FRESH))]
        medium.write_files([*files, *(BootFile(f"dom0/a/{one.name}", one.content) for one in base_os("1.0"))], tree)
        argv = ["/usr/sbin/mke2fs", "-q", "-t", "ext2", "-d", str(tree), str(self.file), _SIZE]
        subprocess.run(argv, check=True)
        shutil.rmtree(tree)


def base_os(version: str) -> tuple[BootFile, ...]:
    """The files of a slot, a few MiB that tell one version from another."""
    import hashlib

    content = {
        "linux": f"linux {version}\n".encode() * 20_000,
        "initrd": f"initrd {version}\n".encode() * 200_000,
        "line": f'set line="version={version}"\n'.encode(),
        "version": f"{version} 6.12.0-test\n".encode(),
    }
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items())
    return tuple(BootFile(name, data) for name, data in {**content, "sums": sums.encode()}.items())
