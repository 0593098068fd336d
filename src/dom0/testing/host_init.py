"""Process 1 of a test host: lays its file system, says `ready`, reaps, and ends when its owner does.

Run by path (`python host_init.py ROOT NAME`) and imports only the standard library. The owner holds the other end of
standard input; when that closes, however the owner ended, this process ends, and with it the kernel ends every
process, mount and interface of the host. Nothing here knows about Docker beyond the directories it uses.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

TEMPORARY = Path("/var/lib/tmp")  # of the host alone, as what else is written there
_DISK = 32 << 30  # bytes that its disk can take; the file grows with what is written

# Copies of other Engines' mounts would keep their containers' file systems and networks busy.
_FOREIGN_TYPES = {"overlay", "nsfs"}


def main(root: Path, name: str) -> None:
    resolver = Path("/etc/resolv.conf")
    nameservers = resolver.read_bytes() if resolver.exists() else b""
    _mount("--make-rprivate", "/")
    _drop_foreign_mounts()
    _mount("-t", "proc", "proc", "/proc")
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")  # noqa: S108 -- `ipc: host` sees it
    _lay_var_lib(_lay_disk(root))
    _lay_resolver(root, resolver, nameservers)
    _mount("--make-rshared", "/")  # as a service manager leaves it; `rshared` binds need it
    socket.sethostname(name)
    _call("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")  # as on a fresh machine; inherited from this one otherwise
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped by the kernel
    sys.stdin.buffer.read()


def _lay_disk(root: Path) -> Path:
    """A file system in one file below `root`. It need not outlive a crash of this machine, so nobody waits for a real
    disk: neither an Engine that asks for its data to be safe, nor who removes an Engine's ten thousand files.
    """
    file, disk = root / "disk.ext4", root / "disk"
    with file.open("wb") as opened:
        opened.truncate(_DISK)
    _call("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", str(file))
    disk.mkdir()
    _mount("-o", "loop,nobarrier,noinit_itable", str(file), str(disk))
    if os.statvfs(disk).f_flag & os.ST_RDONLY:
        # A loop device stays read-only for the next file when its last one was made so: the kernel forgets to reset it.
        device = disk.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        _call("blockdev", "--setrw", f"/dev/{name}")
        _mount("-o", "remount,rw", str(disk))
    return disk


def _lay_var_lib(disk: Path) -> None:
    """An overlay takes what programs write below /var/lib; Docker's and dom0's data are plain directories of `disk`."""
    upper, work = disk / "var-lib", disk / "work"
    for directory in (upper, work, disk / "docker", disk / "dom0"):
        directory.mkdir()
    _mount("-t", "overlay", "-o", f"lowerdir=/var/lib,upperdir={upper},workdir={work}", "overlay", "/var/lib")
    for name in ("docker", "dom0"):
        target = Path("/var/lib") / name
        target.mkdir(exist_ok=True)
        _mount("--bind", str(disk / name), str(target))
    TEMPORARY.mkdir(exist_ok=True)
    TEMPORARY.chmod(0o1777)


def _lay_resolver(root: Path, resolver: Path, nameservers: bytes) -> None:
    """A file of our own: the machine's may be a link into the /run that was just covered."""
    own = root / "resolv.conf"
    own.write_bytes(nameservers)
    target = resolver.resolve()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount("--bind", str(own), str(target))


def _drop_foreign_mounts() -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields = line.split(" ")
        target, kind = fields[4], fields[fields.index("-") + 1]
        if kind in _FOREIGN_TYPES and target != "/":
            subprocess.run(["umount", "--lazy", target.replace("\\040", " ")], check=False, capture_output=True)


def _mount(*arguments: str) -> None:
    _call("mount", *arguments)


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
