"""How a project lies in a dom0 image: its Compose files as layers, everything else as it is; and the tar of that."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePath

from dom0.compose import above
from dom0.compose.files import BASES, LAYERS, STAGED
from dom0.compose.model import Project
from dom0.compose.source import read_source
from dom0.errors import ProjectError
from dom0.images import contents, fingerprint, left_out, selection
from dom0.images.recipe import EPOCH
from dom0.names import ETC


def stage(
    directory: Path, project: Project, kept: Sequence[str], into: Path, writable_binds: tuple[str, ...] = ()
) -> dict[str, contents.TreeEntry]:
    """Write the project to `into` as it lies in an image: its Compose files as layers, everything else as it is.

    `kept`: what is taken although .dockerignore or `writable_binds` (see selection) exclude it. Returns what was taken,
    by its name in the image.
    """
    layers = layer_names(project)
    top = contents.top(directory)
    selected = fingerprint.selected(directory, kept, writable_binds=writable_binds)
    only_layers = _only_layers(project, layers)
    # a project that was taken out of an image brings that image's word on what is left out: it does not count
    found = [e for e in selected if e.name not in only_layers and PurePath(e.name).parts[0] != left_out.FILE]
    contents.copy(found, into, time=EPOCH)
    if (into / LAYERS).is_symlink():
        raise ProjectError(f"{directory / LAYERS}: is a link", hint="make it a directory, or give it another name")
    sources = (read_source(name, (directory / name).read_bytes(), may_be_empty=True) for name in layers)
    if not any(document.get("name") for source in sources for document in source.documents):
        _write(into / LAYERS / f"49-{project.name}.yaml", f'name: "{project.name}"\n'.encode())
    if any(os.path.lexists(into / name) for name in BASES):
        _write(into / STAGED, b"")
    for name, layer in layers.items():
        _write(into / layer, (directory / name).read_bytes())
    if (number := max(map(above.levels, filter(above.is_around, kept)), default=0)) and not os.path.lexists(
        into / above.WAY
    ):
        (into / above.WAY).symlink_to(PurePath(*above.names_down(directory, number)))
    if not writable_binds and (said := left_out.encode(project, directory)):  # else nothing is placed
        _write(into / left_out.FILE, said)
    into.chmod(top.mode)
    return {entry.name: entry for entry in (top, *found)}


def placed_entries(directory: Path, project: Project) -> Iterator[contents.TreeEntry]:
    """What the agent places of the project in `directory`, which has no Dockerfile or is unpacked from an image."""
    yield contents.top(directory)
    kept = selection.kept(project, directory, fingerprint.read_ignore(directory))
    only_layers = _only_layers(project, layer_names(project))
    for entry in fingerprint.selected(directory, kept):
        if entry.name not in {*only_layers, left_out.FILE} and not f"{entry.name}/".startswith(f"{LAYERS}/"):
            yield entry


def _only_layers(project: Project, names: Iterable[str]) -> set[str]:
    """Of its Compose files: those that no service binds, alone or with a directory. The others are files as well."""
    mounts = chain.from_iterable(service.volumes for service in project.services.values())
    sources = [mount.source for mount in mounts if mount.type == "bind"]
    return {name for name in names if not any(Path(project.working_dir, name).is_relative_to(s) for s in sources)}


def layer_names(project: Project) -> dict[str, str]:
    """The project's Compose files, and what they are called in an image."""
    names = [os.path.relpath(file, project.working_dir) for file in project.config_files]
    if names[0].startswith(f"{LAYERS}/"):
        return {name: name for name in names}
    numbered = {name: f"{LAYERS}/{number}-{project.name}.override.yaml" for number, name in enumerate(names, 50)}
    return numbered | {names[0]: f"{LAYERS}/50-{project.name}.yaml"}


def as_written(words: str, project: Project) -> str:
    """`words` on an image of the project, with the names that its Compose files have in its own directory."""
    for name, layer in layer_names(project).items():
        words = words.replace(layer, name)
    return words


def pack(
    directory: Path, into: Path, found: Mapping[str, contents.TreeEntry], *, leave_out: Collection[str] = ()
) -> None:
    """Write a tar that has `directory` as /etc/dom0.

    All entries have one modification time. Owners are those in `found`, by name, as a copy belongs to who made it; all
    else is root's.
    """
    etc = PurePath(ETC.lstrip("/"))

    def as_found(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = os.path.relpath(entry.name, etc)
        if name in leave_out:
            return None
        of = found.get(name)
        entry.uid, entry.gid = (of.uid, of.gid) if of else (0, 0)
        entry.uname = entry.gname = ""
        entry.mtime = EPOCH
        attributes = contents.attributes(of.path) if of else ()
        entry.pax_headers = {contents.PAX + name: value.decode(errors="surrogateescape") for name, value in attributes}
        return entry

    with tarfile.open(into, "w", format=tarfile.PAX_FORMAT) as archive:
        for parent in map(str, reversed(etc.parents[:-1])):
            entry = tarfile.TarInfo(parent)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            archive.addfile(entry)
        archive.add(directory, str(etc), filter=as_found)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link of the project's, which leads anywhere
    path.write_bytes(content)
    path.chmod(0o644)
    contents.stamp(path, EPOCH)
