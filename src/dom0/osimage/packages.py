"""The Debian packages of the base OS: fetched from the host's package sources, cached, unpacked. None is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import msgspec

from dom0 import temporary
from dom0.images import archive, fetched
from dom0.run import capture


class Package(msgspec.Struct, frozen=True):
    """From the name of its file."""

    name: str
    version: str
    size: int  # bytes of the file
    file: Path


async def fetch(kind: str, names: Sequence[str], arch: str, *, anew: bool) -> tuple[Package, ...]:
    """The packages `names` and their dependencies: from the cache, or the newest versions at first and if `anew`.

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
    found = []
    for file in sorted(directory.glob("*.deb")):
        name, version, _ = file.name.split("_")  # NAME_VERSION_ARCHITECTURE.deb, where %3a is the colon of an epoch
        found.append(Package(name, unquote(version), file.stat().st_size, file))
    return tuple(found)


async def unpack(packages: Iterable[Package], into: Path) -> None:
    """Unpack the files of all packages into one tree, without running their scripts."""
    for package in packages:
        await capture(["dpkg-deb", "--extract", str(package.file), str(into)])
