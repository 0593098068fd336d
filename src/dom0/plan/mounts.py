"""What a container sees in its file system: volumes, binds, tmpfs, configs and secrets. Pure.

Source: Compose 2.26.1 `pkg/compose/create.go` (buildContainerVolumes and below) and `secrets.go`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import msgspec

from dom0.compose.model import BindOptions, FileObject, FileReference, Project, ServiceVolume
from dom0.engine import bodies
from dom0.plan.desired import InjectedFile

CONFIGS, SECRETS = "configs", "secrets"
_DEFAULT_DIRECTORY = {CONFIGS: "/", SECRETS: "/run/secrets/"}


class Mounts(msgspec.Struct, frozen=True, kw_only=True):
    binds: tuple[str, ...]
    mounts: tuple[bodies.Mount, ...]
    tmpfs: dict[str, str]  # target -> options
    volumes: tuple[str, ...]  # the Engine's names of the project's volumes
    files: tuple[InjectedFile, ...]
    writes: bool  # to something that outlives the container
    anonymous: tuple[str, ...]  # where the Engine makes nameless volumes


def container_mounts(project: Project, name: str, image_volumes: Sequence[str]) -> Mounts:
    """`image_volumes`: where its image declares some."""
    service = project.services[name]
    # a later volume at the same place replaces the earlier one
    volumes = {posixpath.normpath(volume.target): volume for volume in service.volumes}
    files = bound_files(project, name)
    tmpfs = {path: options for path, _, options in (entry.partition(":") for entry in service.tmpfs)}
    nameless = {target for target, v in volumes.items() if v.type == "volume" and not v.source}
    covered = {*volumes, *files, *map(posixpath.normpath, tmpfs)}
    return Mounts(
        binds=tuple(_bind_string(project, v) for v in volumes.values() if is_bind_string(project, v)),
        mounts=(
            *(_mount(project, v) for v in volumes.values() if not is_bind_string(project, v)),
            *(
                bodies.Mount(type="bind", source=path, target=target, read_only=True)
                for target, path in files.items()
                if target not in volumes
            ),
        ),
        tmpfs=tmpfs,
        volumes=tuple(sorted({_source(project, v) for v in volumes.values() if v.type == "volume" and v.source})),
        files=tuple(
            InjectedFile(
                path=use.target,
                content=(
                    project.environment[use.definition.environment]
                    if use.definition.environment
                    else use.definition.content
                ).encode(),
                mode=0o444 if use.reference.mode is None else use.reference.mode,
                uid=int(use.reference.uid or 0),
                gid=int(use.reference.gid or 0),
            )
            for use in file_uses(project, name)
            if use.inline
        ),
        writes=any(v.type in ("bind", "volume") and v.source and not v.read_only for v in volumes.values()),
        anonymous=tuple(sorted(nameless | set(map(posixpath.normpath, image_volumes)) - covered)),
    )


class FileUse(msgspec.Struct, frozen=True, kw_only=True):
    """A config or secret as one service uses it."""

    kind: str  # configs, secrets
    reference: FileReference
    definition: FileObject
    target: str

    @property
    def inline(self) -> bool:
        return bool(self.definition.environment or self.definition.content)


def file_uses(project: Project, name: str) -> tuple[FileUse, ...]:
    service = project.services[name]
    kinds = ((SECRETS, service.secrets, project.secrets), (CONFIGS, service.configs, project.configs))
    return tuple(
        FileUse(
            kind=kind,
            reference=reference,
            definition=known[reference.source],
            target=posixpath.normpath(posixpath.join(_DEFAULT_DIRECTORY[kind], reference.target or reference.source)),
        )
        for kind, references, known in kinds
        for reference in references
    )


def bound_files(project: Project, name: str) -> dict[str, str]:
    """Target -> host path of the configs and secrets that are files."""
    return {use.target: use.definition.file for use in file_uses(project, name) if not use.inline}


def _source(project: Project, volume: ServiceVolume) -> str:
    if volume.type == "volume" and volume.source in project.volumes:
        return project.volumes[volume.source].name
    return volume.source


def is_bind_string(project: Project, volume: ServiceVolume) -> bool:
    """Whether it goes to the Engine in the old form `source:target:options`.

    Compose uses that wherever the host directory may have to be made (moby#43483); it has no words for some options.
    """
    if ":" in volume.source + volume.target or (volume.bind is not None and volume.bind.recursive):
        return False
    if volume.type == "volume" and volume.source in project.volumes:
        mounts_a_directory = project.volumes[volume.source].driver_opts.get("o") == "bind"
        return mounts_a_directory and not (volume.volume and volume.volume.subpath)
    return volume.type == "bind" and volume.bind is not None and volume.bind.create_host_path


def _bind_string(project: Project, volume: ServiceVolume) -> str:
    bind = volume.bind or BindOptions()
    nocopy = "nocopy" if volume.volume and volume.volume.nocopy else ""
    options = ("ro" if volume.read_only else "rw", bind.selinux, bind.propagation, nocopy)
    target = posixpath.normpath(volume.target)
    return f"{_source(project, volume)}:{target}:{','.join(option for option in options if option)}"


def _mount(project: Project, volume: ServiceVolume) -> bodies.Mount:
    bind, named, tmpfs = volume.bind, volume.volume, volume.tmpfs
    return bodies.Mount(
        type=volume.type,
        target=posixpath.normpath(volume.target),
        source=_source(project, volume),
        read_only=volume.read_only,
        consistency=volume.consistency,
        # `recursive` is in the Compose Specification and in the Engine, Compose 2.26 only forgets to pass it on.
        bind_options=bodies.BindOptions(
            propagation=bind.propagation,
            create_mountpoint=bind.create_host_path,
            non_recursive=bind.recursive == "disabled",
            read_only_non_recursive=bind.recursive == "writable",
            read_only_force_recursive=bind.recursive == "readonly",
        )
        if bind and volume.type == "bind"
        else None,
        volume_options=bodies.VolumeOptions(no_copy=named.nocopy, labels=named.labels, subpath=named.subpath)
        if named and volume.type == "volume"
        else None,
        tmpfs_options=bodies.TmpfsOptions(size_bytes=tmpfs.size, mode=tmpfs.mode)
        if tmpfs and volume.type == "tmpfs"
        else None,
    )
