"""What of the host a scope's containers may bind, and what the Engine is told instead. Pure.

The Engine follows links in the source of a bind when the container starts, on the host and each time anew. Who can
write below a granted directory could put a link there between any check of ours and that moment. So only what was
granted is bound as such: nobody in the scope can write where that lies. What is below it goes as a volume of the
Engine's local driver on the granted directory, with the rest as `VolumeOptions.Subpath`: the Engine (26.0, moby's
`safepath`) opens that with `openat2` beneath the volume, without links, and mounts what it has opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import msgspec

from dom0.socketproxy.hostpath import HostPath, is_within, normal
from dom0.socketproxy.scope import PATHS, Scope

VOLUMES_FROM_API = (1, 45)  # older Engines ignore Subpath, and would bind the whole directory
PREFIX = "PATHS."
LEADS_NOWHERE = "a path below one that was granted is not there, or leads out of it"
SAYS_OF_LINKS = (  # the Engine's messages (moby's `safepath`), which differ by what is where the link leads
    "path concatenation escapes the base directory",
    "cannot access path",
    "error while resolving symlinks",
)


class BoundPath(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is bound, or `rest` below it. `creates`: where nothing is there, a directory is made."""

    written: str  # path, as the scope names it
    root: str  # as HostPath.host
    rest: str
    read_only: bool
    creates: bool

    @property
    def is_host_path(self) -> bool:
        return self.root.startswith("/") and not self.rest


def prefix(scope: Scope) -> str:
    """Of what is made on granted paths. No scope has a capital in its name, so none can make or see one."""
    return f"{PREFIX}{scope.name}."


def options(directory: str) -> dict[str, str]:
    """Of the volume on a granted directory, with what is mounted in it; nothing mounted below gets out."""
    return {"type": "none", "o": "rbind,rslave", "device": directory}


def volume(scope: Scope, root: str) -> str:
    """Name of the volume on a granted directory."""
    return prefix(scope) + hashlib.sha256(root.encode()).hexdigest()[:16] if root.startswith("/") else root


def roots(granted: Iterable[HostPath], scope: Scope) -> dict[str, str]:
    """By path or name in the Engine, what the scope calls it."""
    return {name: grant.inside for grant in granted for name in (grant.host, volume(scope, grant.host))}


def find(granted: Iterable[HostPath], path: str, *, creates: bool) -> BoundPath | None:
    """Where `path` leads. The innermost grant says what may be done; the outermost is where no container can write.

    Nothing is made where that is to read: on the way to the innermost a link could lead beside it.
    """
    wanted = normal(path)
    holding = [grant for grant in granted if is_within(wanted, grant.inside)]
    if not holding:
        return None
    nearest = max(holding, key=lambda grant: (len(grant.inside), not grant.read_only))  # granted twice: to write
    place = nearest.host + wanted[len(nearest.inside) :]
    around = [grant for grant in granted if is_within(place, grant.host)]
    outermost = min(around, key=lambda grant: (len(grant.host), grant.read_only))
    return BoundPath(
        written=wanted,
        root=outermost.host,
        rest=place[len(outermost.host) + 1 :],
        read_only=nearest.read_only,
        creates=creates and not (nearest.read_only or outermost.read_only),
    )


def stamped(labels: Mapping[str, str], written: Mapping[str, str]) -> dict[str, str]:
    """What says them for each level of scopes, outermost first (JSON). `labels`: a scope inside has noted its own.

    `written`: by target, the source of a mount, or all of a bind.
    """
    inner = _levels(labels)
    return {PATHS: json.dumps([written, *inner]) if written or inner else ""}  # not what its image says


def written(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    return next(iter(_levels(labels or {})), {})


def shown(labels: dict[str, str]) -> dict[str, str]:
    inner = _levels(labels)[1:]
    kept = {key: value for key, value in labels.items() if key != PATHS}
    return {**kept, PATHS: json.dumps(inner)} if inner else kept


def _levels(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """None for what somebody else has written there, an image for example."""
    try:
        return msgspec.json.decode(labels.get(PATHS, "[]"), type=list[dict[str, str]])
    except msgspec.DecodeError:
        return []
