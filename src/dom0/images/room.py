"""Whether the Engine has room for a build.

When the disk fills up, BuildKit of Engine 26.1 crashes the whole Engine (SIGSEGV): on a full disk no build is started.
"""

from __future__ import annotations

import shutil

from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error

LEAST = 32 << 20  # bytes: enough for a project's own layer; what services need is not known before


async def check(engine: Engine) -> None:
    """Raises Dom0Error if the Engine's disk is full. Not checked for an Engine on another host."""
    root = (await engine.info()).root_dir
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return
    if free < LEAST:
        raise Dom0Error(
            f"{root}: no space left on the Engine's disk for a build ({free >> 20} MiB)",
            hint="free some: docker system df, then docker image prune",
        )
