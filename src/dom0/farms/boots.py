"""Which base OS a node that starts from the network gets: the newest one, unless that was served TRIES times and the
node never reported from it; then the last other one that a node has come up with. No I/O.

A machine without slots forgets everything with the power, so the server counts its attempts. Resuming a role lets its
nodes try again (`rollout.resume`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec
from msgspec.structs import replace

TRIES = 3


class Tried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base OS with version `os` was served `times` to a node that has not said since that it runs it; `since`: the
    last time.
    """

    role: str
    os: str
    times: int
    since: float


class Boots(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`good`: version of the last base OS that a node came up with; `before`: of the last other one, which is for nodes
    that do not come up with what is good on others. `tried`: by the names of nodes.
    """

    good: str = ""
    before: str = ""
    tried: dict[str, Tried] = {}

    def has_failed(self, name: str, os: str) -> bool:
        tried = self.tried.get(name)
        return tried is not None and tried.os == os and tried.times >= TRIES

    def instead_of(self, newest: str) -> str:
        return self.before if self.good == newest else self.good


def serve(state: Boots, name: str, role: str, newest: str, older: Collection[str], now: float) -> tuple[Boots, str]:
    """Which version the node gets now: `newest`, or one of the `older` ones that are there too."""
    if state.has_failed(name, newest):
        instead = state.instead_of(newest)
        return state, instead if instead in older else newest
    before = state.tried.get(name)
    times = before.times + 1 if before is not None and before.os == newest else 1
    tried = Tried(role=role, os=newest, times=times, since=now)
    return replace(state, tried={**state.tried, name: tried}), newest


def hear(state: Boots, beats: Iterable[tuple[str, str, float]]) -> Boots:
    """Nodes by their names said that they run that version, at that time."""
    good, before, tried = state.good, state.before, dict(state.tried)
    for name, os, last in beats:
        was = tried.get(name)
        if was is not None and was.os == os and last > was.since:
            if os != good:
                good, before = os, good
            del tried[name]
    return state if len(tried) == len(state.tried) else Boots(good=good, before=before, tried=tried)


def forget(state: Boots, names: Iterable[str] = (), roles: Collection[str] = ()) -> Boots:
    """What these nodes, or those of these roles, have tried."""
    gone = {name for name, one in state.tried.items() if one.role in roles} | {*names}
    return replace(state, tried={name: one for name, one in state.tried.items() if name not in gone})
