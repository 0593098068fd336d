"""Where the data of the machine is: volumes and who mounts them, snapshots of the home, disks. Asks no Engine.

What reading takes long, as the size of a volume, is not in it; that of its last backup is in the status.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from dom0.agent.vitals import file_systems
from dom0.engine.values import Container, ContainerSummary
from dom0.names import HOME, HOME_SNAPSHOTS
from dom0.plan import labels
from dom0.plan.actual import Actual
from dom0.plan.desired import Desired


class VolumeUser(msgspec.Struct, frozen=True, kw_only=True):
    container: str  # name
    path: str  # in it
    writable: bool


class VolumeStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    driver: str
    created: float
    declared: bool  # the project names it
    is_home: bool
    kept_of: str  # the volume in whose place something was restored, and whose former files are here; "": none
    users: tuple[VolumeUser, ...]


class DiskSpace(msgspec.Struct, frozen=True, kw_only=True):
    """Of a file system, in bytes. `path`: what of dom0 or the Engine is on it."""

    path: str
    size: int
    free: int


class StorageStatus(msgspec.Struct, frozen=True, kw_only=True):
    volumes: tuple[VolumeStatus, ...]
    others: int  # volumes of this Engine that have nothing to do with the project
    home_snapshots: int  # on this machine
    last_home_snapshot: float
    disks: tuple[DiskSpace, ...]


def storage(desired: Desired, actual: Actual, *, state: Path, places: Sequence[Path]) -> StorageStatus:
    """`state`: the state directory; `places`: paths that are asked for the room on their disks."""
    declared, ours = {spec.name for spec in desired.volumes}, {container.name for container in actual.containers}
    users: dict[str, list[VolumeUser]] = {}
    containers: tuple[Container | ContainerSummary, ...] = (*actual.containers, *actual.others)
    for container in containers:
        for mount in container.mounts:
            if mount.type == "volume":
                user = VolumeUser(container=container.name, path=mount.target, writable=mount.writable)
                users.setdefault(mount.name, []).append(user)
    shown = [
        one
        for one in actual.volumes
        if one.name in declared or labels.HOME in one.labels or _has(users, one.name, ours)
    ]
    snapshots = list(_times(state / HOME_SNAPSHOTS / "snapshots"))  # a file for each
    return StorageStatus(
        volumes=tuple(
            VolumeStatus(
                name=one.name,
                driver=one.driver,
                created=one.created,
                declared=one.name in declared,
                is_home=_has(users, one.name, {HOME}),
                kept_of=one.labels.get(labels.HOME, ""),
                users=tuple(sorted(users.get(one.name, ()), key=lambda user: (user.container, user.path))),
            )
            for one in sorted(shown, key=lambda one: one.name)
        ),
        others=len(actual.volumes) - len(shown),
        home_snapshots=len(snapshots),
        last_home_snapshot=max(snapshots, default=0.0),
        disks=tuple(DiskSpace(path=one.path, size=one.size, free=one.available) for one in file_systems(places)),
    )


def _has(users: Mapping[str, Sequence[VolumeUser]], volume: str, containers: Collection[str]) -> bool:
    """Whether one of the containers mounts the volume."""
    return any(user.container in containers for user in users.get(volume, ()))


def _times(directory: Path) -> Iterator[float]:
    try:
        with os.scandir(directory) as entries:
            yield from (entry.stat().st_mtime for entry in entries)
    except OSError:  # there are none
        return
