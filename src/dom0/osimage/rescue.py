"""The rescue image: an ssh server for a machine on which no dom0 runs.

Made from Debian packages and `os/rescue`, without an Engine, as a file for `docker load`. Its build is reproducible.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from dom0 import temporary
from dom0.images import contents, fetched
from dom0.images.recipe import EPOCH
from dom0.osimage import elf, packages
from dom0.osimage.recipe import OsRecipe

ARCHIVE = "rescue.tar"
NAME = "dom0-rescue:latest"
LAYER = "layer.tar.gz"  # the launcher unpacks it by this name where there is no Engine
_COMMAND = "/usr/lib/dom0/rescue-sshd"
_EMPTY = ("dev", "proc", "root", "run", "sys", "tmp", "usr/lib", "usr/sbin", "var/lib/dom0")
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin", "usr/bin/sh": "busybox"}


async def build(recipe: OsRecipe, say: Callable[[str], None], *, anew: bool) -> Path:
    """The archive, built unless the cache has it. Raises Dom0Error."""
    inner = replace(recipe, directory=recipe.directory / "rescue")
    names = (inner.directory / "packages").read_text().split()
    found = await packages.fetch(f"rescue-{recipe.architecture.name}", names, recipe.architecture.name, anew=anew)

    async def make(into: Path) -> None:
        say(f"rescue image: {len(found)} packages")
        await _make(inner, found, into / ARCHIVE)

    key = _key(inner, found)
    return await fetched.cached(f"os-rescue-{recipe.architecture.name}", key, make, anew=anew) / ARCHIVE


def _key(recipe: OsRecipe, found: Sequence[Path]) -> str:
    code = [Path(file).read_text() for file in (__file__, elf.__file__, contents.__file__)]
    text = f"{code} {EPOCH} {recipe.architecture.name} {[package.name for package in found]}"
    return contents.digest(contents.entries(recipe.directory), text=text)


async def _make(recipe: OsRecipe, found: Sequence[Path], archive: Path) -> None:
    with temporary.directory("rescue") as directory:
        unpacked, root = directory / "packages", directory / "root"
        unpacked.mkdir()
        await packages.unpack(found, unpacked)
        contents.copy(contents.entries(recipe.directory / "tree"), root, time=EPOCH, public=True)
        for name in _EMPTY:
            (root / name).mkdir(parents=True, exist_ok=True)
        for path, target in _LINKS.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(target)
        for name in recipe.files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(unpacked / name, root / name)
        await elf.add_libraries([root / name for name in recipe.files], unpacked, recipe.architecture, root)
        _write(recipe, _layer(root), archive)


def _layer(root: Path) -> bytes:
    def reproducible(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = EPOCH
        return entry

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root)), recursive=False, filter=reproducible)
    return buffer.getvalue()


def _write(recipe: OsRecipe, layer: bytes, archive: Path) -> None:
    """In the format of `docker save`; the name of the configuration is its digest, the image's ID."""
    config = json.dumps(
        {
            "architecture": recipe.architecture.name,
            "os": "linux",
            "config": {"Cmd": [_COMMAND], "Labels": {"dom0.role": "rescue"}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    listing = [{"Config": name, "RepoTags": [NAME], "Layers": [LAYER]}]
    with tarfile.open(archive, mode="w") as tar:
        for path, content in (
            (LAYER, gzip.compress(layer, mtime=0)),
            (name, config),
            ("manifest.json", json.dumps(listing).encode()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, EPOCH
            tar.addfile(entry, io.BytesIO(content))
