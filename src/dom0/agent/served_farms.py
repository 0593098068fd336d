"""Farms whose servers run on this machine, as these describe them for the page: documents of the agent's API, and how
long they are valid. In memory only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0.errors import Busy

LARGEST = 4 * 1024 * 1024  # bytes of what one says
MOST = 8  # farms
FORGET = 600.0  # seconds after its last word


class ServedNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    role: str
    revision: int  # which it runs or has tried; 0: none yet
    state: str  # of that: `trying`, `good`, `failed` or `-`
    os: str  # version of its base OS; "" where it has none
    last_seen: float  # when it was heard of, in seconds since the epoch, to the minute
    why: str  # what it waits for or does, or why it failed; "" where it runs the current revision


class ServedFarm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    farm: str
    directory: str  # where it lies, for its server
    revision: int  # the current one; 0: none yet
    os: str  # version of its base OS; "" where it says none
    paused: tuple[str, ...]  # roles
    remarks: tuple[str, ...]  # what else there is to say: of roles that wait, reboot locks, what floats
    nodes: tuple[ServedNode, ...]
    heard: Annotated[float, Meta(ge=0)] = 0.0  # when the agent was told; it says this itself


class ServedFarms:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._farms: dict[tuple[str, str], ServedFarm] = {}

    def hear(self, said: ServedFarm) -> bool:
        """Whether it is a new one. Raises Busy."""
        known, key = len(self.list()), (said.farm, said.directory)
        if (is_new := key not in self._farms) and known >= MOST:
            raise Busy(f"{said.farm}: too many farms are served on this machine", hint="end another dom0 farm serve")
        self._farms[key] = replace(said, heard=self._now())
        return is_new

    def list(self) -> list[ServedFarm]:
        """By their names; not those of which nothing was heard for long."""
        self._farms = {key: one for key, one in self._farms.items() if 0 <= self._now() - one.heard < FORGET}
        return [self._farms[key] for key in sorted(self._farms)]
