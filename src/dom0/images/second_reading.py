"""The machine reads a project with the Docker Compose of dom0-base, which may be another version than this host's.

One version may refuse what the other accepts, or a default may differ. So both read the project before anything is
built, the other one in a container of dom0-base, and a project that they read differently is refused.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import msgspec

from dom0.compose.difference import difference
from dom0.compose.findings import Finding, refuse
from dom0.compose.load import load
from dom0.compose.model import Project, canonical
from dom0.compose.source import MAX_BYTES
from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig
from dom0.engine.protocol import Engine
from dom0.engine.values import Image
from dom0.errors import Dom0Error, ProjectError
from dom0.names import ETC
from dom0.plan import labels

_WANTED = "/tmp/project.json"  # noqa: S108 -- in a container of its own


def other_compose(image: Image, version: str) -> str:
    """The version of the Docker Compose in `image`, dom0-base or one on it, where that is not `version`, else ""."""
    theirs, ours = (labels.compose_version(text) for text in (image.labels.get(labels.COMPOSE, ""), version))
    return "" if theirs == ours else theirs


async def require_alike(engine: Engine, base: Image, etc: Path, project: Project) -> None:
    """Raises ProjectError where the agent of `base` would not read `etc`, laid out as in an image, as `project`."""
    body = ContainerBody(
        image=base.id,
        entrypoint=("dom0", "agent", "--read-as", _WANTED),
        healthcheck=HealthConfig(test=("NONE",)),
        labels=labels.NO_PART,
        host_config=HostConfig(network_mode="none"),
    )
    container = await engine.create_container("", body)
    try:
        await engine.put_archive(container, "/", await asyncio.to_thread(_pack, etc, project))
        await engine.start_container(container)
        code = await engine.wait_container(container)
        words = await engine.logs(container) if code else ""
    finally:
        await engine.remove_container(container, force=True)
    if code == 0:
        return
    theirs, ours = other_compose(base, project.compose_version), project.compose_version
    hint = f"Docker Compose {theirs} of the machine reads it otherwise than {ours} here: write out what differs"
    kind = ProjectError if code == ProjectError.exit_code else Dom0Error
    raise kind(words.strip().removeprefix("dom0: "), hint=hint)


async def read_as(wanted: bytes) -> None:
    """In that container: raises ProjectError where the project is not read as `wanted`, one in JSON."""
    project = msgspec.json.decode(wanted, type=Project, strict=False)
    found = await load(Path(ETC), Path(project.working_dir), hashed=False)
    # Without digests of files: large ones are empty in that container.
    if path := difference(*(msgspec.structs.replace(each, digests={}) for each in (project, found))):
        raise refuse([Finding(path, "is not what it is in the project")], found.locations)


def _pack(etc: Path, project: Project) -> bytes:
    def without_data(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.size = 0 if entry.size > MAX_BYTES else entry.size  # larger than any file that is read
        return entry

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(etc, ETC.lstrip("/"), filter=without_data)
        entry = tarfile.TarInfo(_WANTED.lstrip("/"))
        text = canonical(project)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return packed.getvalue()
