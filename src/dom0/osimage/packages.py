"""The Debian packages of the base OS: fetched from the host's package sources, cached, unpacked. None is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dom0 import temporary
from dom0.images import archive, fetched
from dom0.run import capture


async def fetch(kind: str, names: Sequence[str], arch: str, *, anew: bool) -> list[Path]:
    """The files of `names` and their dependencies: from the cache, or the newest versions at first and if `anew`.

    Of each `kind` the cache keeps those of the latest `names`.
    """
    archives = await archive.debian_archives()

    async def download(into: Path) -> None:
        with temporary.directory("status") as scratch:
            nothing = scratch / "status"
            nothing.touch()
            await archive.download(names, archives, nothing, into, architecture=arch)

    key = f"{names} {archive.sources_text(archives)}"
    directory = await fetched.cached(f"os-packages-{kind}", key, download, anew=anew)
    return sorted(directory.glob("*.deb"))


async def unpack(packages: Iterable[Path], into: Path) -> None:
    """Unpack the files of all packages into one tree, without running their scripts."""
    for package in packages:
        await capture(["dpkg-deb", "--extract", str(package), str(into)])
