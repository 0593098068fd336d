"""A directory as one compressed file system, reproducible."""

from __future__ import annotations

import os
from pathlib import Path

from dom0.images.archive import environment
from dom0.images.recipe import EPOCH
from dom0.run import capture

SQUASHFS = "root.squashfs"
_BLOCK = "1M"  # larger blocks compress better, and cost more when one page of them is read
_LEVEL = "22"  # of zstd; slow to compress, as fast as others to decompress


async def squash(root: Path, image: Path) -> None:
    stamp(root)
    options = ["-comp", "zstd", "-Xcompression-level", _LEVEL, "-b", _BLOCK, "-all-root", "-no-xattrs"]
    env = environment() | {"SOURCE_DATE_EPOCH": str(EPOCH)}
    await capture(["mksquashfs", str(root), str(image), *options, "-noappend", "-no-progress", "-quiet"], env=env)


def stamp(root: Path) -> None:
    """Set one modification time for all below `root`."""
    for path in (*root.rglob("*"), root):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
