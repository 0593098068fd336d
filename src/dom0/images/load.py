"""Images of an archive into the Engine, also of one without layers that are here: dom0 image save --without-layers-of.

All is looked at before anything is loaded, and all is loaded before a name moves.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from dom0.engine.protocol import Engine, find_image
from dom0.engine.values import EngineInfo
from dom0.errors import Dom0Error, EngineError, EngineUnreachable
from dom0.images import saved
from dom0.images.layer_list import MAKE, list_layers
from dom0.images.layers_there import in_graph_driver
from dom0.images.loading import NamedImage, load_as, remove_name
from dom0.images.saved import SavedImage, SavedImages
from dom0.registry.manifest import parse_platform


class LoadedImage(msgspec.Struct, frozen=True, kw_only=True):
    """As `dom0 image load --json` prints it."""

    id: str
    names: tuple[str, ...]
    layers: int
    layers_here: int  # that the Engine had, whether they are in the archive or not


class _Image(msgspec.Struct, frozen=True):
    """`here`: digests of layers that need not be sent; `is_whole`: the Engine has all of it."""

    saved: SavedImage
    named: NamedImage
    here: frozenset[str]
    is_whole: bool


async def load(engine: Engine, file: Path) -> list[LoadedImage]:
    """All images of the archive, under their names.

    Raises Dom0Error: then each name means what it did before, unless it is the Engine that fails while they move.
    """
    info = await engine.info()
    archive = await saved.read(file, parse_platform(f"linux/{info.machine}"))
    archive.require_names()
    images = [await _look(engine, archive, image, info) for image in archive.images]
    for image in images:
        _require(image, archive, image.here)
    try:
        await _load_all(engine, archive, images)
    except EngineUnreachable:
        raise
    except EngineError:
        if info.containerd_store and any(archive.left_out(image.saved) for image in images):
            there = {layer.digest for each in await list_layers(engine) for layer in each.layers}
            for image in images:
                _require(image, archive, there)
        raise
    return [
        LoadedImage(
            id=image.named.id,
            names=tuple(name.familiar() for name in image.saved.names),
            layers=len(image.saved.manifest.layers),
            layers_here=sum(layer.digest in image.here for layer in image.saved.manifest.layers),
        )
        for image in images
    ]


async def _look(engine: Engine, archive: SavedImages, image: SavedImage, info: EngineInfo) -> _Image:
    """What of it is here. containerd's store is believed to have what was left out: it says so when it has not."""
    top = (image.index or image.manifest).digest
    image_id = top if info.containerd_store else image.manifest.config.digest
    named = NamedImage(image.names[0], image.manifest, image.index, image_id)
    there = await find_image(engine, image_id)
    # An index is of all platforms, and only some of them may be there; or a kill has ended a load.
    if there and there.layers == image.diff_ids and named.while_loaded.familiar() not in there.tags:
        return _Image(image, named, frozenset(layer.digest for layer in image.manifest.layers), is_whole=True)
    if info.containerd_store:
        here = frozenset(layer.digest for layer in archive.left_out(image))
    else:
        here = await in_graph_driver(engine, image.manifest, image.diff_ids)
    return _Image(image, named, here, is_whole=False)


def _require(image: _Image, archive: SavedImages, here: Collection[str]) -> None:
    """Raises Dom0Error where a layer is neither in the archive nor here."""
    missing = [layer.digest for layer in archive.left_out(image.saved) if layer.digest not in here]
    if missing and not image.is_whole:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise Dom0Error(
            f"{archive.file}: {image.saved}: layer {missing[0]}{more}: neither in it nor here; nothing is loaded",
            hint=f"make the archive anew without what is here; {MAKE}",
        )


async def _load_all(engine: Engine, archive: SavedImages, images: Sequence[_Image]) -> None:
    """Under names of ours first. Raises EngineError."""
    coming = [image for image in images if not image.is_whole]
    try:
        for image in coming:
            await load_as(engine, image.named.while_loaded, image.named, archive.opened, image.here)
        for image in images:
            for name in image.saved.names:
                await engine.tag_image(image.named.id, name.familiar())
    finally:
        for image in coming:
            await remove_name(engine, image.named.while_loaded.familiar())
