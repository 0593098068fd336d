"""The files of a project that are not in its image, which may be pushed to a registry: secrets, env files and `.env`.

The image names them (label `dom0.private`), and its inputs include a digest of them that is too slow to brute-force.
`dom0 up` copies them to the machine, below its state directory, for each image; before the project of an image is read
they are put into it. An exception in .dockerignore (`!.env`) lets a file into the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dom0.compose import above
from dom0.errors import ProjectError
from dom0.images import contents
from dom0.names import STATE
from dom0.plan import labels

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image

DIRECTORY = "private"  # in there: one directory for each image, named by its ID, and by hand one named by the project
COMPLETE = ".complete"  # in such a directory: all files are there
_SHOWN = 5


def of_image(image_labels: Mapping[str, str]) -> tuple[str, ...]:
    """The private files of an image; relative paths, none of which leads out of the project."""
    try:
        names = json.loads(image_labels.get(labels.PRIVATE, "[]"))
    except ValueError:
        return ()
    texts = [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []
    return tuple(name for name in texts if not name.startswith("/") and ".." not in PurePath(name).parts)


def digest(directory: Path, names: Sequence[str], project: str) -> str:
    """Of all files together, too slow to brute-force a short secret; "" for none."""
    if not names:
        return ""
    found = (contents.file_entry(name, path) for name in names if (path := above.find(directory, name)).is_file())
    total = contents.digest(found, owned=True)
    return hashlib.scrypt(total.encode(), salt=project.encode(), n=2**14, r=8, p=1, dklen=32).hex()


def words(names: Sequence[str]) -> str:
    return f"private, so not in the image: {_shown(names)}"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def brought_for(state: Path, image_id: str) -> Path:
    """Where the files of that image lie on the machine."""
    return state / DIRECTORY / image_id.removeprefix("sha256:")


async def deliver(engine: Engine, image: Image, directory: Path) -> None:
    """Copy the private files of `image` to the Engine's machine, from the project in `directory`.

    Raises EngineError, ProjectError.
    """
    if names := of_image(image.labels):
        await _bring(engine, image.id, pack(directory, names, brought_for(Path(), image.id)))


async def deliver_packed(engine: Engine, image_id: str, packed: bytes) -> None:
    """As `deliver`, of what `pack` has made without a directory. Raises EngineError, ValueError for no such tar."""
    import io
    import tarfile

    into, moved = brought_for(Path(), image_id), io.BytesIO()
    try:
        with (
            tarfile.open(fileobj=io.BytesIO(packed)) as archive,
            tarfile.open(fileobj=moved, mode="w", format=tarfile.PAX_FORMAT) as written,
        ):
            for parent in (into.parent, into):
                entry = tarfile.TarInfo(str(parent))
                entry.type, entry.mode = tarfile.DIRTYPE, 0o700
                written.addfile(entry)
            for entry in archive:
                if entry.name.startswith("/") or ".." in PurePath(entry.name).parts:
                    raise ValueError(f"private files: {entry.name}: leads elsewhere")
                content = archive.extractfile(entry) if entry.isreg() else None
                placed = entry.replace(name=str(into / entry.name), deep=False)
                placed.pax_headers = {key: value for key, value in entry.pax_headers.items() if key != "path"}
                written.addfile(placed, content)  # a path there, as of a long name, would win over the name
    except tarfile.TarError as error:
        raise ValueError(f"private files: {error}") from error
    await _bring(engine, image_id, moved.getvalue())


async def _bring(engine: Engine, image_id: str, tar: bytes) -> None:
    """Through a container that is never started: the machine may be another one, and this process need not be root."""
    from dom0.engine.bodies import ContainerBody, HostConfig

    body = ContainerBody(
        image=image_id,
        labels=labels.NO_PART,
        host_config=HostConfig(binds=(f"{STATE}:{STATE}",), network_mode="none"),
    )
    container = await engine.create_container("", body)
    try:
        await engine.put_archive(container, STATE, tar)
    finally:
        await engine.remove_container(container, force=True)


def pack(directory: Path, names: Sequence[str], into: Path) -> bytes:
    """The file COMPLETE comes last: it is missing from a tar that was cut off."""
    import io
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        inner = {parent for name in names for parent in (into / name).parents if parent != Path()}
        for parent in sorted(inner):
            entry = tarfile.TarInfo(str(parent))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(entry)
        for name in names:
            path = above.find(directory, name)
            try:
                archive.add(path, str(into / name), recursive=False)
            except OSError as error:
                raise ProjectError(f"{path}: {error.strerror}") from error
        archive.addfile(tarfile.TarInfo(str(into / COMPLETE)))
    return packed.getvalue()


def lay(names: Iterable[str], etc: Path, roots: Sequence[Path], project: str) -> None:
    """Put the files into the project `etc`, each from the first of `roots` that has it. Raises ProjectError."""
    import shutil  # not needed for a digest, which most calls ask for

    sources = {name: next((path for root in roots if _is_file(path := above.find(root, name))), None) for name in names}
    if missing := [name for name, source in sources.items() if source is None]:
        raise ProjectError(
            f"{_shown(missing)}: private, so not in the image, and not on this machine",
            hint="dom0 up in the project's directory brings what is private; or put it there by hand, as "
            f"{STATE}/{DIRECTORY}/{project}/{missing[0]}",
        )
    for name, source in sources.items():
        assert source is not None
        target = etc / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target)
        with contextlib.suppress(PermissionError):  # a process that is not root only reads it
            found = source.stat()
            os.chown(target, found.st_uid, found.st_gid)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
