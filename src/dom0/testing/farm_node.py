"""What a node's agent does for its farm, as a process of its own and without a machine: `python -m` this, on a host
that has joined. Roles are not brought up; what floats is. With the word `well` they are said to run, and well.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping

from dom0.engine.docker import DockerEngine
from dom0.engine.values import PublishedPort
from dom0.errors import Busy
from dom0.farms import follow
from dom0.farms.base_os import BaseOsHost
from dom0.names import state_directory


class NoMachine:
    generation = 0
    is_well = True

    async def run(self, _image: str, _images: Mapping[str, str], *, after: int) -> str:
        raise Busy("there is no machine")

    async def find_end(self, _image: str, *, after: int) -> str:
        return ""


class NoNeighbours:
    wanted: frozenset[str] | None = frozenset()

    def tell(self, found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]) -> None:
        pass

    def published(self, _services: Iterable[str]) -> Mapping[str, tuple[PublishedPort, ...] | None]:
        return {}

    def entrances(self, _services: Iterable[str]) -> Mapping[str, tuple[tuple[int, str, int], ...]]:
        return {}


class Well(NoMachine):
    async def run(self, _image: str, _images: Mapping[str, str], *, after: int) -> str:
        return ""


async def main() -> None:
    engine = await DockerEngine.connect()
    if "well" in sys.argv:
        follow.WELL_FOR = 0.0  # a reboot lock is given back at once, and nobody waits for that
    runner = Well() if "well" in sys.argv else NoMachine()
    await follow.follow(state_directory(), engine, runner, BaseOsHost(), NoNeighbours())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(main())
