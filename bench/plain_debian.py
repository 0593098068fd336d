"""A plain Debian machine for virtual machines: what a person would install instead, from the same packages.

systemd, Debian's Docker Engine with the settings it comes with, an OpenSSH server, an address by DHCP; and the services
of examples/mybox, brought up once by `docker compose up`, which the Engine starts again at every boot as their restart
policies say. The root file system is one ext4, made without mounting anything. Made once for each state of the
sources and kept in the checkout.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dom0.images import archive, recipe, rootfs
from dom0.images.contents import digest, entries
from dom0.names import BASE_IMAGE
from dom0.osimage.recipe import load as os_recipe
from dom0.run import capture
from dom0.testing import chain, owned
from dom0.testing.hosts import Host

EXAMPLE = "mybox"
PROJECT = f"/var/lib/{EXAMPLE}"  # the directory with its compose.yaml
DISKS = chain.CACHE / "bench-disks"
SIZE = "8G"  # of the file system; the file is sparse
COMMAND_LINE = "root=/dev/vda ro"
SERIAL = "/dev/ttyS1"  # where the observer writes
# Besides those of the base OS: what makes a Debian boot by itself, reachable as a server is.
PACKAGES = (
    *("dbus", "docker-compose", "initramfs-tools", "iproute2", "kmod", "libpam-systemd", "openssh-server", "procps"),
    *("systemd-sysv", "systemd-timesyncd", "udev"),
)
_NOT_INSTALLED = ("busybox-static", "systemd-boot-efi")  # the base OS has these in their stead
_FILES = {
    "etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": f"{EXAMPLE}\n",
    "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {EXAMPLE}\n",
    "etc/systemd/network/80-dhcp.network": "[Match]\nName=en*\n\n[Network]\nDHCP=yes\n",
    "etc/systemd/system/observer.service": f"""\
[Unit]
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev.service

[Service]
ExecStart=/usr/local/sbin/observer {SERIAL}

[Install]
WantedBy=sysinit.target
""",
}
_UNITS = ("observer.service", "systemd-networkd.service")


@dataclass(frozen=True)
class PlainDebian:
    """`disk` is its root file system; `used` are the bytes of its files without the Engine's store."""

    disk: Path
    linux: Path
    initrd: Path
    used: int


def provide(observer: Path) -> PlainDebian:
    """`observer` is a program that is started at boot, with a serial port to write to."""
    DISKS.mkdir(parents=True, exist_ok=True)
    with (DISKS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = DISKS / f"plain-debian-{_inputs(observer)}"
        if not directory.exists():
            for old in DISKS.glob("plain-debian-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=DISKS) as fresh:
                asyncio.run(_make(observer, Path(fresh)))
                Path(fresh).rename(directory)
                Path(fresh).mkdir()  # for who wants to remove it
    used = int((directory / "used").read_text())
    return PlainDebian(directory / "disk.ext4", directory / "linux", directory / "initrd", used)


def _inputs(observer: Path) -> str:
    project = digest(entries(recipe.examples() / EXAMPLE), text=recipe.rootfs_inputs())
    text = f"{project} {os_recipe().packages} {Path(__file__).read_text()}"
    return hashlib.sha256(text.encode() + observer.read_bytes()).hexdigest()[:16]


async def _make(observer: Path, into: Path) -> None:
    tree = owned.run_root() / "plain-debian"
    try:
        await _install(tree)
        await _configure(tree, observer)
        used = await capture(["du", "--summarize", "--one-file-system", "--bytes", str(tree)])
        (into / "used").write_text(used.stdout.split()[0])
        for name, file in (("linux", "vmlinuz"), ("initrd", "initrd.img")):
            shutil.copyfile((tree / file).resolve(), into / name)
        _fill_store(tree)
        await _write(into / "disk.ext4", tree)
    finally:
        owned.remove_directory(tree)


async def _install(tree: Path) -> None:
    archives = await archive.debian_archives()
    packages = [name for name in os_recipe().packages if name not in _NOT_INSTALLED]
    with tempfile.TemporaryDirectory(prefix="dom0-bench-") as scratch:
        argv = [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"),
            f"--include={','.join((*packages, *PACKAGES))}",
            *(f"--setup-hook={command}" for command in rootfs.keyring_hooks(archives)),
            *(rootfs.main_suite(archives), str(tree), str(rootfs.write_sources(Path(scratch), archives))),
        ]
        await rootfs.bootstrap(argv, Path(scratch))


async def _configure(tree: Path, observer: Path) -> None:
    for name, text in _FILES.items():
        (tree / name).write_text(text)
    program = tree / "usr/local/sbin/observer"
    shutil.copyfile(observer, program)
    program.chmod(0o755)
    await capture(["chroot", str(tree), "systemctl", "enable", *_UNITS], env=archive.environment())


def _fill_store(tree: Path) -> None:
    """What `docker compose up` leaves on such a machine, from an Engine on this one."""
    with Host(name=EXAMPLE, outside=True) as host:
        chain.provide(host)
        shutil.copytree(recipe.examples() / EXAMPLE, host.path(PROJECT))
        host.docker("compose", "--project-directory", PROJECT, "up", "--detach", timeout=900)
        host.docker("image", "rm", BASE_IMAGE)
        host.stop_engine()
        shutil.rmtree(tree / "var/lib/docker", ignore_errors=True)
        host.run(["cp", "--archive", "/var/lib/docker", PROJECT, str(tree / "var/lib")], timeout=900)


async def _write(disk: Path, tree: Path) -> None:
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]  # else the guest's kernel writes them while we measure
    await capture(["mke2fs", "-q", "-t", "ext4", "-L", "debian", *options, "-d", str(tree), str(disk), SIZE])
