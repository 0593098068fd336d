"""Lists of the layers that a machine has, for an archive that another one makes without them.

    there: dom0 image ls --layers --json >FILE         here: dom0 image save --without-layers-of FILE

In place of the list an archive will do that the other machine has loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from dom0 import temporary
from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error, NotFound
from dom0.images import docker_cli, saved
from dom0.images.saved import SavedImage, SavedImages
from dom0.registry.manifest import Platform, parse_platform
from dom0.registry.reference import digest_flaw
from dom0.run import CommandFailed
from dom0.wording import excerpt

_MOST_BYTES = 64 << 20  # of a list
MAKE = "on the machine that lacks the images: dom0 image ls --layers --json >FILE"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """`diff_id`: of its tar; `digest`: of the form that it has as a blob, "" where only its files are there."""

    diff_id: str
    digest: str = ""


class ImageLayers(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has of an image, as `dom0 image ls --layers --json` prints it; the lowest layer first."""

    id: str
    names: tuple[str, ...]
    layers: tuple[Layer, ...]


async def list_layers(engine: Engine) -> list[ImageLayers]:
    """Of all images. With containerd's store each has to be saved for that, and removed again. Raises Dom0Error."""
    info = await engine.info()
    found = {}
    for row in await engine.images():
        with contextlib.suppress(NotFound):  # gone since
            image = await engine.image(row.id)
            layers = tuple(Layer(diff_id=each) for each in image.layers)
            found[image.id] = ImageLayers(id=image.id, names=image.tags, layers=layers)
    if info.containerd_store:
        platform = parse_platform(f"linux/{info.machine}")
        found = {key: msgspec.structs.replace(each, layers=await _blobs(each, platform)) for key, each in found.items()}
    return [image for image in found.values() if image.layers]


async def _blobs(image: ImageLayers, platform: Platform) -> tuple[Layer, ...]:
    """As containerd has them; of an image of which it has not all, or that is gone since, none."""
    with temporary.directory("layers", temporary.LARGE) as directory:
        file = directory / "image.tar"
        try:
            await docker_cli.save([image.id], file)
        except CommandFailed:
            return ()
        archive = await saved.read(file, platform)
        return next((layers_of(each) for each in archive.images if not archive.left_out(each)), ())


def layers_of(image: SavedImage) -> tuple[Layer, ...]:
    pairs = zip(image.diff_ids, image.manifest.layers, strict=True)
    return tuple(Layer(diff_id=diff_id, digest=layer.digest) for diff_id, layer in pairs)


async def read_there(file: Path, platform: Platform) -> list[ImageLayers]:
    """What another machine has: its list, or an archive that it has loaded. Raises Dom0Error."""
    saved.require_file(file)
    with file.open("rb") as opened:
        raw = opened.read(_MOST_BYTES + 1)
    if raw[257:262] == b"ustar":
        archive = await saved.read(file, platform)
        return [ImageLayers(id="", names=(), layers=layers_of(image)) for image in archive.images]
    if not raw.startswith((b"[", b"{")) or len(raw) > _MOST_BYTES:
        raise Dom0Error(f"{file}: is neither an archive of images nor a list of layers", hint=MAKE)
    try:
        found = msgspec.json.decode(raw, type=list[ImageLayers])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Dom0Error(f"{file}: is no list of layers: {excerpt(str(error))}", hint=MAKE) from error
    for layer in (layer for image in found for layer in image.layers):
        if flaw := digest_flaw(layer.diff_id) or (layer.digest and digest_flaw(layer.digest)):
            raise Dom0Error(f"{file}: is no list of layers: {flaw}", hint=MAKE)
    return found


def not_needed(archive: SavedImages, there: Iterable[ImageLayers]) -> frozenset[str]:
    """Digests of layers that no image of `archive` needs on a machine that has `there`.

    Only the lowest ones of an image count, as a graph driver finds no others, and only in the form that is there.
    """
    there = list(there)
    droppable, needed = set[str](), set[str]()
    for image in archive.images:
        layers = layers_of(image)
        most = max((_in_common(layers, other.layers) for other in there), default=0)
        droppable.update(layer.digest for layer in layers[:most])
        needed.update(layer.digest for layer in layers[most:])
    return frozenset(droppable - needed)


def _in_common(layers: Sequence[Layer], there: Sequence[Layer]) -> int:
    pairs = zip(layers, there, strict=False)
    same = [one.diff_id == other.diff_id and other.digest in ("", one.digest) for one, other in pairs]
    return [*same, False].index(False)
