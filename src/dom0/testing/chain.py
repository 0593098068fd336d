"""The images of the chain for test hosts: built once for each state of the sources, kept as files in the checkout.

`python -m dom0.testing.chain IMAGE` builds one on the Engine that DOCKER_HOST names.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dom0.engine.docker import DockerEngine
from dom0.images import recipe
from dom0.images.chain import build_ambassador, build_base
from dom0.names import AMBASSADOR_IMAGE, BASE_IMAGE, ROOTFS_IMAGE
from dom0.testing.hosts import Host

CACHE = Path(__file__).parents[3] / ".cache"
IMAGES = CACHE / "test-images"


def provide(host: Host) -> None:
    """Bring dom0-rootfs and dom0-base to `host`. The first of several processes builds, the others wait and load."""
    base = _file("base", recipe.base_inputs())
    with _locked(fcntl.LOCK_SH):
        if _load(host, base):
            return
    with _locked(fcntl.LOCK_EX):
        if not _load(host, base):
            _load(host, _file("rootfs", recipe.rootfs_inputs()))
            _build(host, BASE_IMAGE)
            _save(host, "rootfs", ROOTFS_IMAGE)
            _save(host, "base", BASE_IMAGE, ROOTFS_IMAGE)


def provide_ambassador(host: Host) -> None:
    """Bring dom0-ambassador to `host`."""
    ambassador = _file("ambassador", recipe.ambassador_inputs())
    with _locked(fcntl.LOCK_SH):
        if _load(host, ambassador):
            return
    with _locked(fcntl.LOCK_EX):
        if not _load(host, ambassador):
            _build(host, AMBASSADOR_IMAGE)
            _save(host, "ambassador", AMBASSADOR_IMAGE)


def _build(host: Host, image: str) -> None:
    """In a process of its own: which Engine is meant is said by its environment, and not inside the host, whose
    network ends there.
    """
    argv = [sys.executable, "-m", "dom0.testing.chain", image]
    environment = host.environment() | {"DOCKER_HOST": host.docker_host, "XDG_CACHE_HOME": str(CACHE)}
    subprocess.run(argv, check=True, env=environment, stdin=subprocess.DEVNULL)


def _load(host: Host, file: Path) -> bool:
    if file.exists():
        host.docker("load", "--quiet", "--input", str(file))
    return file.exists()


def _save(host: Host, kind: str, *images: str) -> None:
    """Keep `images` under the inputs that the first one was made from, in place of what was kept of that kind."""
    label = '{{index .Config.Labels "dom0.inputs"}}'
    file = _file(kind, host.docker("image", "inspect", "--format", label, images[0]).stdout.strip())
    if not file.exists():
        fresh = file.with_suffix(".new")
        host.docker("save", "--output", str(fresh), *images)
        for old in IMAGES.glob(f"{kind}-*.tar"):
            old.unlink()
        fresh.rename(file)


def _file(kind: str, inputs: str) -> Path:
    return IMAGES / f"{kind}-{inputs.removeprefix('sha256:')[:16]}.tar"


@contextmanager
def _locked(how: int) -> Iterator[None]:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / "lock").open("w") as lock:
        fcntl.flock(lock, how)
        yield


async def _build_here(image: str) -> None:
    engine = await DockerEngine.connect(os.environ["DOCKER_HOST"])
    build = {BASE_IMAGE: build_base, AMBASSADOR_IMAGE: build_ambassador}[image]
    try:
        await build(engine, lambda line: print(line, flush=True))  # noqa: T201 -- its progress
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(_build_here(sys.argv[1]))
