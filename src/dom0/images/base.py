"""What goes into dom0-base besides dom0-rootfs: Debian packages, wheels, the agent. Fetched on the host, where the
package sources and the Python index are known to be reachable, and kept in a cache until what asked for them changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import dom0
from dom0.errors import Dom0Error
from dom0.images import archive, contents, docker
from dom0.images.recipe import BAKED, BASE, EPOCH, ROOTFS, agent_files, data
from dom0.plan.labels import INPUTS, ROOTFS_ID
from dom0.run import CommandFailed, capture

_GLIBC = (17, 28, 34)  # minor versions that wheels are built for; Debian's own is newer than all of them


async def build_base(rootfs_id: str, inputs: str, *, no_cache: bool) -> str:
    """Build dom0-base on the present dom0-rootfs and return the image's ID."""
    packages = await _packages(rootfs_id, no_cache=no_cache)
    wheels = await _wheels(_python_version(packages))
    with tempfile.TemporaryDirectory(prefix="dom0-agent-") as scratch:
        agent = Path(scratch)
        _stage_agent(agent, inputs)
        recipe = docker.Recipe(
            BASE,
            data(BASE),
            contexts={"packages": packages, "python": wheels, "agent": agent},
            labels={INPUTS: inputs, ROOTFS_ID: rootfs_id},
            tag=BASE,
            no_cache=no_cache,
        )
        return await docker.build(recipe)


async def _packages(rootfs_id: str, *, no_cache: bool) -> Path:
    names = (data(BASE) / "packages").read_text().split()

    async def fetch(into: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="dom0-status-") as scratch:
            status = await docker.extract(ROOTFS, "/var/lib/dpkg/status", Path(scratch))
            await archive.download(names, await archive.debian_archives(), status, into)

    return await _cached("packages", f"{rootfs_id} {names}", fetch, anew=no_cache)


def _python_version(packages: Path) -> str:
    """`3.13`, of the Python among the Debian packages in the directory `packages`."""
    found = [re.match(r"python(3\.\d+)-minimal_", package.name) for package in packages.iterdir()]
    versions = [match[1] for match in found if match]
    assert len(versions) == 1, f"{packages}: {versions}"
    return versions[0]


async def _wheels(python: str) -> Path:
    lock = data(BASE) / "requirements.lock"
    machine = os.uname().machine

    async def fetch(into: Path) -> None:
        try:
            await capture(pip_install(lock, python, machine, into))
        except CommandFailed as error:
            if "No module named pip" not in error.stderr:
                raise
            raise Dom0Error(
                f"{sys.executable}: has no pip, which fetches the agent's packages",
                hint=f"{sys.executable} -m ensurepip",
            ) from error

    return await _cached("wheels", f"{lock.read_text()} {python} {machine}", fetch)


def pip_install(lock: Path, python: str, machine: str, into: Path) -> list[str]:
    """The command that installs what `lock` names, hash by hash, for another Python than the one that runs."""
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--require-hashes", "--no-deps", "--only-binary=:all:"),
        *(f"--platform=manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)),
        f"--platform=manylinux2014_{machine}",
        *(f"--python-version={python}", f"--target={into}", f"--requirement={lock}"),
    ]


def _stage_agent(directory: Path, inputs: str) -> None:
    """The package dom0 as it is installed in the image."""
    package = directory / "dom0"
    contents.copy(agent_files(), package, time=EPOCH, public=True)
    (package / BAKED.name).write_text(f"{inputs}\n")
    metadata = directory / f"dom0-{dom0.__version__}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: dom0\nVersion: {dom0.__version__}\n")


async def _cached(kind: str, key: str, fetch: Callable[[Path], Awaitable[None]], *, anew: bool = False) -> Path:
    """The directory that `fetch` fills, made once for each `key`; of every kind the latest one is kept."""
    top = cache_directory() / kind
    wanted = top / hashlib.sha256(key.encode()).hexdigest()[:16]
    if anew or not wanted.is_dir():
        top.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=top))
        try:
            await fetch(fresh)
            _replace_all(top, fresh, wanted)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return wanted


def _replace_all(top: Path, fresh: Path, wanted: Path) -> None:
    for old in top.iterdir():
        if old != fresh:
            shutil.rmtree(old)
    fresh.rename(wanted)


def cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dom0"
