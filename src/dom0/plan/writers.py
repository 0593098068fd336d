"""Who else writes where a service of ours writes: two databases on one directory destroy it. Pure.

These are running containers that dom0 did not make and that have the same volume mounted writable, or a directory that
is the same one, contains it or lies in it. Not counted: what the project declares as shared, system directories, and
directories so high up that a container with them manages the whole host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath

import msgspec

from dom0.engine.values import ContainerSummary, Mount
from dom0.health import Problem, Severity
from dom0.plan import labels
from dom0.plan.desired import Desired, Role, Slot
from dom0.socketproxy.scope import LABEL, Scope

HELPERS = (Role.ROOT, Role.HANDOVER, Role.DEV, Role.HOME_WORKER)  # of dom0: they know what they do with volumes
SYSTEM = tuple(map(PurePosixPath, ("/dev", "/proc", "/sys", "/run", "/var/run", "/etc/localtime", "/etc/timezone")))
FAR_UP = tuple(map(PurePosixPath, ("/var/lib", "/var/lib/docker", "/var/lib/docker/volumes", "/var/log")))
DEPTH = 3  # parts of a path below which it is far up, its root counted


class Writer(msgspec.Struct, frozen=True):
    container: str  # name
    place: str  # the volume, or the directory of ours


def other_writers(desired: Desired, slot: Slot, others: Iterable[ContainerSummary]) -> tuple[Writer, ...]:
    """Raises nothing; empty for the machine's own containers, whose home is there to be shared.

    What an orchestrator has started writes where it was told to.
    """
    candidates = [other for other in others if other.running and other.labels.get(labels.ROLE) not in HELPERS]
    if path := slot.create.labels.get(LABEL, ""):
        own = Scope(path.removeprefix("/"))
        candidates = [other for other in candidates if not own.owns(other.name, other.labels)]
    if not candidates or slot.role is not Role.SERVICE:
        return ()
    spared = {*desired.shared, *(name for one in desired.slots if one.role is Role.HOME for name in one.volumes)}
    places = [place for place in written(slot) if place not in spared]
    found = (
        Writer(other.name, place)
        for place in places
        if not any(PurePosixPath(place).is_relative_to(system) for system in SYSTEM)
        for other in candidates
        if any(_is_shared(place, mount) for mount in other.mounts if mount.writable)
    )
    return tuple(dict.fromkeys(found))


def written(slot: Slot) -> Iterator[str]:
    """Names of volumes, and directories of the host."""
    host = slot.create.host_config
    for bind in host.binds:
        source, _, *options = bind.split(":")
        if "ro" not in ",".join(options).split(","):
            yield source
    for mount in host.mounts or ():
        if mount.type in ("bind", "volume") and mount.source and not mount.read_only:
            yield mount.source


def _is_shared(place: str, mount: Mount) -> bool:
    if not place.startswith("/"):
        return mount.type == "volume" and mount.name == place
    if mount.type != "bind":
        return False
    ours, theirs = PurePosixPath(place), PurePosixPath(mount.source)
    if ours == theirs:
        return True
    outer = ours if ours in theirs.parents else theirs if theirs in ours.parents else None
    return outer is not None and outer not in FAR_UP and len(outer.parts) >= DEPTH


def in_use_problem(slot: Slot, writers: Collection[Writer], severity: Severity = Severity.ERROR) -> Problem:
    names = sorted({writer.container for writer in writers})
    places = sorted({writer.place for writer in writers})
    return Problem(
        code="volume-in-use",
        subject=slot.key,
        title=f"{slot.service}: {', '.join(places)} is written by {', '.join(names)}, which dom0 did not make",
        severity=severity,
        hint=f"docker stop {' '.join(names)}; or, if both may write there: x-dom0.shared: [{', '.join(places)}]",
    )


def is_made_by_compose(desired: Desired, other: ContainerSummary) -> bool:
    """Whether it is of a project of our name.

    An image that Compose built has the labels of project and service too, and any container of it inherits them; only
    the number says that Compose made the container.
    """
    is_complete = {labels.COMPOSE_SERVICE, labels.COMPOSE_NUMBER} <= other.labels.keys()
    return is_complete and other.labels.get(labels.COMPOSE_PROJECT) == desired.project


def compose_containers(desired: Desired, others: Iterable[ContainerSummary]) -> tuple[ContainerSummary, ...]:
    """Those that Compose made for our services, or whose name we need."""
    names, services = {slot.name for slot in desired.slots}, {slot.service for slot in desired.slots}
    return tuple(
        other
        for other in others
        if is_made_by_compose(desired, other)
        and (other.name in names or (other.running and other.labels[labels.COMPOSE_SERVICE] in services))
    )
