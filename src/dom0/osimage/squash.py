"""A directory as one compressed file system, the same bytes for the same files."""

from __future__ import annotations

import os
from pathlib import Path

from dom0.images.archive import environment
from dom0.images.recipe import EPOCH
from dom0.run import capture

SQUASHFS = "root.squashfs"
_BLOCK = "1M"  # larger blocks are smaller in all, and cost more where one page of them is read
_LEVEL = "22"  # of zstd; costs time here, none where it is unpacked


async def squash(root: Path, image: Path) -> None:
    """Pack the directory `root` into the file `image`."""
    stamp(root)
    options = ["-comp", "zstd", "-Xcompression-level", _LEVEL, "-b", _BLOCK, "-all-root", "-no-xattrs"]
    env = environment() | {"SOURCE_DATE_EPOCH": str(EPOCH)}
    await capture(["mksquashfs", str(root), str(image), *options, "-noappend", "-no-progress", "-quiet"], env=env)


def stamp(root: Path) -> None:
    """Give all below `root` one time: what a build made has that of the build."""
    for path in (*root.rglob("*"), root):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
