"""Whether the Engine has room for a build.

BuildKit of Engine 26.1 ends the whole Engine (SIGSEGV) when the disk fills up under it: what is full is not tried.
"""

from __future__ import annotations

import os

from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error

LEAST = 32 << 20  # bytes: a project's own layer is small; what a build needs beyond it, nobody knows before


async def check(engine: Engine) -> None:
    """Raises Dom0Error if the Engine's disk is full. An Engine elsewhere has to know by itself."""
    root = (await engine.info()).root_dir
    try:
        found = os.statvfs(root)
    except OSError:
        return
    free = found.f_bavail * found.f_frsize
    if free < LEAST:
        raise Dom0Error(
            f"{root}: no space left on the Engine's disk for a build ({free >> 20} MiB)",
            hint="free some: docker system df, then docker image prune",
        )
