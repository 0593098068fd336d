"""Data disks for virtual machines: ext4 image files with a filled Engine's store, as a base OS finds them at boot.

Theory of operation: an Engine on a test host (hosts.py) fills the directories, and `mke2fs -d` copies them into the
file, so nothing is ever mounted or attached to a loop device here. A disk is made once for each state of the sources
and kept in the checkout. Virtual machines must not write to it: give each an overlay of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dom0.images import recipe
from dom0.images.contents import digest, entries
from dom0.testing import chain
from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.machines import Machine

EXAMPLE = "mybox"
LABEL = "dom0-data"
SIZE = "8G"  # of the file system; the file is sparse
DISKS = chain.CACHE / "test-disks"
_BUILD_DEADLINE = 900.0  # seconds: Debian packages are downloaded


def provide(*, started: bool, config: Mapping[str, Any] = CONTAINERD_STORE) -> Path:
    """A disk labelled dom0-data with dom0-base, the dom0:latest of examples/mybox and the images of its services.

    `started`: as that machine leaves it that has run, with its containers; else nothing was ever created.
    """

    def make(disk: Path) -> None:
        with _example(config) as machine:
            machine.dom0(*(("up", "--wait") if started else ("build",)), timeout=_BUILD_DEADLINE)
            machine.host.stop_engine()
            lib = machine.host.root / "tree" / "var" / "lib"
            lib.mkdir(parents=True)
            machine.host.run(["cp", "--archive", "/var/lib/docker", "/var/lib/dom0", str(lib)], timeout=_BUILD_DEADLINE)
            write(disk, machine.host.root / "tree")

    kind = f"{'started' if started else 'images'}-{_digest(json.dumps(dict(config)))[:4]}"
    return _kept(kind, "ext4", make)


def provide_archive() -> Path:
    """What `dom0 image save` writes for a boot medium of that machine, from an Engine as Debian sets it up."""

    def make(archive: Path) -> None:
        with _example({}) as machine:
            machine.dom0("build", timeout=_BUILD_DEADLINE)
            machine.dom0("image", "save", str(archive), timeout=_BUILD_DEADLINE)

    return _kept("archive", "tar", make)


def _kept(kind: str, suffix: str, make: Callable[[Path], None]) -> Path:
    DISKS.mkdir(parents=True, exist_ok=True)
    with (DISKS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = DISKS / f"{kind}-{_digest(_inputs())}.{suffix}"
        if not file.exists():
            make(file)
            for old in set(DISKS.glob(f"{kind}-*.{suffix}")) - {file}:
                old.unlink()
    return file


@contextmanager
def _example(config: Mapping[str, Any]) -> Iterator[Machine]:
    with Host(name=EXAMPLE, outside=True, config=config) as host:
        chain.provide(host)
        yield Machine(host, recipe.examples() / EXAMPLE)


def write(disk: Path, tree: Path, *, label: str = LABEL, size: str = SIZE) -> None:
    """Write an ext4 image of `tree` to the file `disk`: whole or not at all."""
    fresh = disk.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]  # else the guest's kernel writes them while we measure
    argv = ["mke2fs", "-q", "-t", "ext4", "-L", label, *options, "-d", str(tree), str(fresh), size]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    fresh.rename(disk)


def _inputs() -> str:
    project = digest(entries(recipe.examples() / EXAMPLE), text=recipe.base_inputs())
    return f"{project} {Path(__file__).read_text()}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
