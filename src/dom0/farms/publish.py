"""Images of this machine's Engine into a farm's directory, where its server gives their blobs to nodes.

What docker saves is taken as it is: its digests are what Engines know an image by, and layers that a node has keep
theirs from one revision to the next.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from dom0 import temporary
from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error, ProjectError
from dom0.farms.directory import FarmDirectory
from dom0.farms.revisions import BaseOs, Blob, FarmImage
from dom0.host import uki
from dom0.images import docker_cli, saved
from dom0.images.loading import remove_name
from dom0.images.saved import SavedImage, SavedImages
from dom0.names import short_id
from dom0.registry.manifest import Descriptor, ImageManifest, Index, digest_of, parse_platform

SAVED = "dom0-farm-saved"  # what images are called while they are saved, each with a tag of its ID
_PIECE = 1 << 20  # bytes


async def publish(
    engine: Engine, farm: FarmDirectory, ids: Sequence[str], known: Iterable[FarmImage]
) -> dict[str, FarmImage]:
    """By ID on this Engine, with their blobs in the farm's directory; without a reference. Raises Dom0Error.

    `known`: images of revisions, which are not saved again.
    """
    whole = [image for image in known if all(farm.has_blob(each.digest, each.size) for each in image.blobs)]
    found = {id_: image for image in whole for id_ in image.ids}
    if missing := sorted({id_ for id_ in ids if id_ not in found}):
        platform = parse_platform(f"linux/{(await engine.info()).machine}")
        with temporary.directory("publish", temporary.LARGE) as scratch:
            file = scratch / "images.tar"
            await _save(engine, missing, file)
            archive = await saved.read(file, platform)
            for image in archive.images:
                made = await asyncio.to_thread(_keep, farm, archive, image)
                found |= dict.fromkeys(made.ids, made)
    for id_ in ids:
        if id_ not in found:
            raise Dom0Error(f"{id_}: docker save has not written this image", hint="look at it: docker image inspect")
    return {id_: found[id_] for id_ in ids}


async def _save(engine: Engine, ids: Sequence[str], file: Path) -> None:
    """By names of ours: of images without one Docker 26 notes one alone in the archive's index."""
    names = {id_: f"{SAVED}:{short_id(id_)}" for id_ in ids}
    try:
        for id_, name in names.items():
            await engine.tag_image(id_, name)
        await docker_cli.save(list(names.values()), file)
    finally:
        for name in names.values():
            await remove_name(engine, name)


def keep_private(farm: FarmDirectory, tar: bytes) -> Blob:
    """Raises Unwritable."""
    blob = Blob(digest=digest_of(tar), size=len(tar))
    if not farm.has_blob(blob.digest, blob.size):
        farm.add_blob(blob.digest, [tar])
    return blob


def find_base_os(farm: FarmDirectory) -> tuple[BaseOs | None, dict[str, Path]]:
    """What farm.yaml names, and where its blobs lie, by their digests. Raises Dom0Error."""
    if not (named := farm.settings().os):
        return None, {}
    path = farm.path / named
    if not path.is_file():
        raise ProjectError(f"farm.yaml: os: {named}: no such file", hint="dom0 os build makes dom0-os/dom0-os.efi")
    version = uki.read(path).version
    if not version:
        raise ProjectError(f"farm.yaml: os: {named}: does not say its version", hint="take one of dom0 os build")
    found = {}
    for file in (path, path.with_name(f"{path.name}.sig")):
        if file.is_file():
            with file.open("rb") as opened:
                found[f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"] = file
    blobs = [Blob(digest=digest, size=file.stat().st_size) for digest, file in found.items()]
    return BaseOs(version=version, file=blobs[0], signature=blobs[1] if blobs[1:] else None), found


def keep_base_os(farm: FarmDirectory) -> BaseOs | None:
    """With its blobs in the farm's directory. Raises Dom0Error."""
    base_os, files = find_base_os(farm)
    for digest, file in files.items():
        if not farm.has_blob(digest, file.stat().st_size):
            with file.open("rb") as opened:
                farm.add_blob(digest, iter(partial(opened.read, _PIECE), b""))
    return base_os


def named(images: Mapping[str, FarmImage], references: Mapping[str, str]) -> tuple[FarmImage, ...]:
    """`references`: to IDs, which `images` has."""
    return tuple(replace(images[id_], reference=ref) for ref, id_ in sorted(references.items()))


def _keep(farm: FarmDirectory, archive: SavedImages, image: SavedImage) -> FarmImage:
    """Raises Dom0Error."""
    if left_out := archive.left_out(image):
        hint = "pull it for this machine alone, or build it here"
        raise Dom0Error(f"{image}: docker save has left out its layer {left_out[0].digest}", hint=hint)
    layers = tuple(_keep_blob(farm, archive, layer) for layer in image.manifest.layers)
    config = _keep_blob(farm, archive, image.manifest.config)
    return FarmImage(
        reference="",
        index=_keep_document(farm, image.index) if image.index else None,
        manifest=_keep_document(farm, image.manifest),
        config=config,
        layers=layers,
    )


def _keep_document(farm: FarmDirectory, document: ImageManifest | Index) -> Blob:
    if not farm.has_blob(document.digest, len(document.raw)):
        farm.add_blob(document.digest, [document.raw])
    return Blob(digest=document.digest, size=len(document.raw))


def _keep_blob(farm: FarmDirectory, archive: SavedImages, descriptor: Descriptor) -> Blob:
    def pieces() -> Iterator[bytes]:
        left = descriptor.size
        with archive.opened(descriptor) as opened:
            while left and (piece := opened.read(min(left, _PIECE))):
                left -= len(piece)
                yield piece

    if not farm.has_blob(descriptor.digest, descriptor.size):
        farm.add_blob(descriptor.digest, pieces())
    return Blob(digest=descriptor.digest, size=descriptor.size)
