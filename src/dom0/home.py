"""The home volume, which is backed up and restored as any other is (`dom0.backup`). Nothing here prints."""

from __future__ import annotations

import msgspec

from dom0.backup.restic import Snapshot, VolumeSource
from dom0.engine.protocol import Engine
from dom0.errors import NotFound
from dom0.names import HOME
from dom0.plan import labels
from dom0.plan.backups import HOME_PATH

WORKER = "dom0-home-worker"


class Homes(msgspec.Struct, frozen=True, kw_only=True):
    home: str  # volume
    kept: tuple[str, ...]  # volumes that restores left: a home from before, or what an interrupted restore had brought
    snapshots: tuple[Snapshot, ...]  # on this machine, newest first


async def find_home(engine: Engine) -> VolumeSource:
    """The machine's home. Raises NotFound."""
    hint = "it comes with dom0 up, where compose.yaml says `home: {}` below x-dom0"
    try:
        container = await engine.container(HOME)
    except NotFound as error:
        raise NotFound(f"home: there is no container {HOME}", hint=hint) from error
    volumes = [mount for mount in container.mounts if mount.type == "volume"]
    if not volumes:
        raise NotFound(f"{HOME}: mounts no volume", hint=hint)
    project = container.labels.get(labels.PROJECT, "")
    return VolumeSource(volumes[0].name, volumes[0].source, project, HOME_PATH, WORKER)
