"""Populates the root file system of the base OS: files of packages, the libraries they need, links, certificates.

Our own programs are not in it: they are in `os/tree`, beside the squashfs in the initramfs, so that a change of them
does not compress the large part again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.osimage import elf, modules
from dom0.osimage.recipe import OsRecipe

_EMPTY = ("dev", "data", "etc", "home", "medium", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib", "var/log")
_CERTIFICATES = "usr/share/ca-certificates/mozilla"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"


async def populate(recipe: OsRecipe, unpacked: Path, kernel: modules.Kernel, root: Path) -> None:
    """Fill the directory `root`. Raises Dom0Error."""
    for directory in _EMPTY:
        (root / directory).mkdir(parents=True)
    _copy_files(recipe, unpacked, root)
    await elf.add_libraries(elf.programs(root), unpacked, recipe.architecture, root)
    chosen = modules.choose(kernel, (*recipe.first_modules, *recipe.modules))
    await modules.install(kernel, chosen, root)
    bundle = root / _BUNDLE  # one file, as the package's script would make it
    bundle.parent.mkdir(parents=True)
    certificates = sorted((root / _CERTIFICATES).iterdir())
    bundle.write_text("".join(f"{file.read_text().strip()}\n" for file in certificates))
    shutil.rmtree(root / "usr/share/ca-certificates")
    _link(recipe, root)


def _copy_files(recipe: OsRecipe, unpacked: Path, root: Path) -> None:
    for pattern in recipe.files:
        found = sorted(unpacked.glob(pattern))
        if not found:
            hint = "name its package in os/packages, or take it out"
            raise Dom0Error(f"os/files: no package brings {pattern}", hint=hint)
        for file in found:
            target = root / file.relative_to(unpacked)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target, follow_symlinks=False)


def _link(recipe: OsRecipe, root: Path) -> None:
    for path, target in recipe.links.items():
        link = root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for applet in recipe.applets:
        if not any(os.path.lexists(root / directory / applet) for directory in ("usr/bin", "usr/sbin")):
            (root / "usr/bin" / applet).symlink_to("busybox")
