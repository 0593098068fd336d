"""A project, read in its directory before a build. Few imports, so that Compose starts soon."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dom0.compose.load import load
from dom0.compose.model import Project
from dom0.compose.output_cache import OutputCache
from dom0.names import PLACED


class Reading(msgspec.Struct, frozen=True):
    """`project` as it will be on the machine; `cache` is for the reading of its image."""

    project: Project
    cache: OutputCache


async def read(directory: Path, cache: OutputCache | None = None) -> Reading:
    """The caller closes the `cache` of the result. Raises ProjectError, Dom0Error."""
    cache = cache or OutputCache()
    try:
        return Reading(await load(directory, PLACED, hashed=False, cache=cache), cache)
    except BaseException:
        await cache.close()
        raise
