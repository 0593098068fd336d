"""All images of a machine in one tar, for a boot medium, so that the first boot needs no network."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dom0 import temporary
from dom0.compose.load import load
from dom0.durable import sync, writing
from dom0.engine.protocol import Engine, find_image
from dom0.engine.values import Image
from dom0.errors import Dom0Error
from dom0.images import docker_cli, private, saved
from dom0.images.layer_list import ImageLayers, not_needed
from dom0.images.project import Needs, needs_of
from dom0.images.saved import SavedImages
from dom0.images.unpack import unpacked
from dom0.names import BASE_IMAGE, IMAGE, PLACED, ROOTFS_IMAGE
from dom0.plan import labels
from dom0.plan.desired import Role
from dom0.registry.manifest import Platform
from dom0.socketproxy import tarstream


class MachineImages(msgspec.Struct, frozen=True):
    """References. `missing` are not on this Engine: the machine has to pull them."""

    here: tuple[str, ...]
    missing: tuple[str, ...]
    has_backups: bool  # it has a home, or volumes that are backed up
    private: tuple[str, ...]  # files that the machine needs and these images do not hold


async def images_of_machine(engine: Engine) -> MachineImages:
    """dom0:latest, dom0-base that its login stands on, and the images of its services. Raises Dom0Error.

    dom0-rootfs goes along where dom0-base stands on it: with it the machine makes images of its own without a network,
    and as all of it lies in dom0-base as well, that costs some kB.
    """
    if (image := await find_image(engine, IMAGE)) is None:
        raise Dom0Error(f"{IMAGE}: there is no such image", hint="dom0 build")
    if image.labels.get(labels.ROLE) != Role.ROOT:
        raise Dom0Error(f"{IMAGE}: is not the image of a machine", hint="dom0 build")
    needs = await _needs(engine, image)
    wanted = dict.fromkeys([IMAGE, BASE_IMAGE, *needs.images])
    found = {ref: await find_image(engine, ref) for ref in wanted}
    base, rootfs = found[BASE_IMAGE], await find_image(engine, ROOTFS_IMAGE)
    # by its layers: another store, from which both were brought, knew it by another ID
    if base and rootfs and base.layers[: len(rootfs.layers)] == rootfs.layers:
        found[ROOTFS_IMAGE] = rootfs
    here = tuple(ref for ref, there in found.items() if there)
    missing = tuple(ref for ref, there in found.items() if not there)
    return MachineImages(here, missing, needs.home, private.of_image(image.labels))


async def _needs(engine: Engine, image: Image) -> Needs:
    """From the image's label; from its project if it was built without dom0."""
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(image.labels.get(labels.NEEDS, ""), type=Needs)
    with temporary.directory("save") as scratch:
        async with unpacked(engine, IMAGE, scratch) as etc:
            return needs_of(await load(etc, PLACED))


async def save(references: Sequence[str], file: Path) -> None:
    """Write these images to the tar `file`, whole or not at all. Raises CommandFailed, Unwritable."""
    with _written(file) as fresh:
        await docker_cli.save(references, fresh)


async def save_without(references: Sequence[str], file: Path, there: Sequence[ImageLayers], platform: Platform) -> int:
    """As `save`, without layers that the machine has which has `there`; returns how many bytes they are.

    All of them lie in a file beside temporary ones for that time. Raises Dom0Error.
    """
    with temporary.directory("save", temporary.LARGE) as directory:
        whole = directory / "images.tar"
        await docker_cli.save(references, whole)
        archive = await saved.read(whole, platform)
        archive.require_names()
        left_out = not_needed(archive, there)
        with _written(file) as fresh, writing(file):
            await asyncio.to_thread(_copy, archive, left_out, fresh)
        return sum(entry.size for digest in left_out if (entry := archive.find(digest)))


def _copy(archive: SavedImages, left_out: frozenset[str], to: Path) -> None:
    skipped = [archive.find(digest) for digest in left_out]
    writer = tarstream.TarWriter()
    with to.open("wb") as written:
        os.fchmod(written.fileno(), 0o600)  # as docker save does: who may read images is for the Engine to say
        for entry in archive.files.values():
            if entry in skipped:
                continue
            written.write(writer.begin(entry))
            with archive.opened_at(entry) as opened:
                left = entry.size
                while piece := opened.read(min(left, tarstream.PIECE)):
                    written.write(piece)
                    left -= len(piece)
        written.write(writer.end())


@contextlib.contextmanager
def _written(file: Path) -> Iterator[Path]:
    """Where to write what is `file` when the block has ended well. Raises Unwritable."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        yield fresh
        with writing(file):
            sync(fresh)  # a stick is pulled soon
            fresh.replace(file)
            sync(file.parent)
    finally:
        fresh.unlink(missing_ok=True)
