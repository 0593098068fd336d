"""A redis image for tests, of Debian's packages unpacked as they are: kept as a file in the checkout."""

from __future__ import annotations

import asyncio
import fcntl
import json
import tempfile
from pathlib import Path

from dom0.images import archive, rootfs
from dom0.testing.chain import IMAGES
from dom0.testing.hosts import Host

IMAGE = "redis:test"  # starts a server that keeps nothing and asks for no password
_TAR = IMAGES / "redis.tar"
_PACKAGES = ("base-files", "busybox", "dash", "redis-server", "redis-tools")
_REDUCE = 'chroot "$1" busybox --install -s /usr/bin; rm -rf "$1"/usr/share "$1"/usr/lib/*/gconv'
_SERVER = ("redis-server", "--bind", "*", "-::*", "--protected-mode", "no", "--save", "", "--loglevel", "warning")


def provide(host: Host) -> None:
    """Bring it to `host`. The first of several processes unpacks, the others wait."""
    _TAR.parent.mkdir(parents=True, exist_ok=True)
    with (_TAR.parent / "redis.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _TAR.exists():
            fresh = _TAR.with_suffix(".new.tar")
            asyncio.run(_unpack(fresh))
            fresh.rename(_TAR)
    changes = ("--change", "EXPOSE 6379", "--change", f"CMD {json.dumps(_SERVER)}")
    host.docker("import", *changes, str(_TAR), IMAGE)


async def _unpack(fresh: Path) -> None:
    archives = await archive.debian_archives()
    with tempfile.TemporaryDirectory(prefix="dom0-redis-") as scratch:
        sources = rootfs.write_sources(Path(scratch), archives)
        argv = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(_PACKAGES)}"]
        argv += [f"--extract-hook={_REDUCE}", rootfs.main_suite(archives), str(fresh), str(sources)]
        await rootfs.bootstrap(argv, Path(scratch))
