"""Which layers of an image an Engine has, so that they need not be downloaded.

An Engine with a graph driver says what the layers of its images are unpacked, and looks for those of a new one from
below. One whose images containerd keeps has blobs as registries send them, and says nowhere which: there we remember
what the images are made of that we have pulled.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from dom0.durable import write_atomic
from dom0.engine.protocol import Engine
from dom0.errors import NotFound
from dom0.registry.manifest import ImageManifest


async def in_graph_driver(engine: Engine, image: ImageManifest, diff_ids: tuple[str, ...]) -> frozenset[str]:
    """Digests of layers that need not be sent: of the lowest ones, as many as some image stands on."""
    most = 0
    for row in await engine.images():
        with contextlib.suppress(NotFound):  # gone since
            layers = (await engine.image(row.id)).layers
            same = [one == other for one, other in zip(diff_ids, layers, strict=False)]
            most = max(most, [*same, False].index(False))
    above = {layer.digest for layer in image.layers[most:]}
    return frozenset(layer.digest for layer in image.layers[:most]) - above


class Remembered:
    """In `directory`: for each image that was pulled, by its ID, the digests of its layers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def in_containerd(self, engine: Engine) -> frozenset[str]:
        """Digests of layers that need not be sent. Of images that are gone nothing is remembered any more."""
        # What begins with a dot is what another process writes.
        paths = [path for path in self._directory.glob("*") if not path.name.startswith(".")]
        there = {row.id for row in await engine.images()} if paths else ()
        found: set[str] = set()
        for path in paths:
            if f"sha256:{path.name}" not in there:
                path.unlink(missing_ok=True)
                continue
            with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):  # gone, or of a power cut
                found.update(msgspec.json.decode(path.read_bytes(), type=list[str]))
        return frozenset(found)

    def add(self, image_id: str, image: ImageManifest) -> None:
        """A power cut may take it, and some layers come once more. Raises Unwritable."""
        content = msgspec.json.encode([layer.digest for layer in image.layers])
        write_atomic(self._directory / image_id.removeprefix("sha256:"), content, durable=False)
