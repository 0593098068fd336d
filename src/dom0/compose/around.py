"""Binds of the project's directory, or of one around it: further mounts, so that containers see what Compose shows.

A directory around the project is on a machine without the project (see above.py), which is bound in its place. And
`.dom0-parent`, which is in the project there and no part of it, is hidden by an empty file system: else an `rm -rf` in
the project's directory would remove the whole tree.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from dom0.compose import above

_SMALL = 65536  # bytes; not read-only where the bind is not, or a `chown -R` at a container's start would fail

Volume = dict[str, Any]


def add_mounts(data: dict[str, Any], root: Path, final: Path, named: Iterable[str]) -> None:
    """Changes `data`, whose paths are final. `named`: what the project in `root` names, by its names in an image."""
    top = max(map(above.levels, named), default=0)
    for service in (data.get("services") or {}).values():
        if volumes := service.get("volumes"):
            others = (path.partition(":")[0] for path in service.get("tmpfs") or ())
            taken = {_target(path) for path in (*others, *(volume.get("target") or "" for volume in volumes))}
            volumes += [mount for volume in volumes for mount in _inside(volume, taken, root, final, top)]


def _inside(volume: Volume, taken: set[PurePath], root: Path, final: Path, top: int) -> Iterator[Volume]:
    """No mount where the service has one of its own."""
    source, target = PurePath(volume.get("source") or ""), _target(volume.get("target") or "")
    if volume.get("type") != "bind" or not source.is_relative_to(final):
        return
    name = str(source.relative_to(final))
    if not above.is_around(name):
        return
    hiding = {"type": "tmpfs", "tmpfs": {"size": _SMALL}, "read_only": volume.get("read_only", False)}
    own = [other for other in taken if target in other.parents]
    for path, inner in (("", name), *above.within(root, above.levels(name))):
        mounts = [volume | {"source": os.path.normpath(final / inner), "target": str(target / path)}] if path else []
        if above.levels(inner) < top:
            mounts.append({**hiding, "target": str(target / path / above.PARENT)})
        yield from (mount for mount in mounts if not any(PurePath(mount["target"]).is_relative_to(it) for it in own))


def _target(path: str) -> PurePath:
    return PurePath(posixpath.normpath(path))
