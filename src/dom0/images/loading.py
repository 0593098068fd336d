"""An image into an Engine, of blobs that lie here: whole and verified, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import IO

import msgspec

from dom0.engine.protocol import Engine, find_image
from dom0.errors import EngineError
from dom0.names import short_id
from dom0.registry.archive import ImageArchive
from dom0.registry.manifest import Descriptor, ImageManifest, Index
from dom0.registry.reference import DEFAULT_REGISTRY, Reference

LOADED = "dom0-loaded"  # what images are called that have no name yet, each with a tag of its ID


class NamedImage(msgspec.Struct, frozen=True):
    """What a reference names now; `id` is what the Engine calls it."""

    reference: Reference
    manifest: ImageManifest
    index: Index | None
    id: str

    @property
    def digest(self) -> str:
        return (self.index or self.manifest).digest

    @property
    def platform(self) -> str:
        """That of the manifest; "" where no index says it."""
        entries = self.index.entries if self.index else ()
        own = (each.platform for each in entries if each.descriptor.digest == self.manifest.digest)
        return str(next(own, None) or "")

    @property
    def sizes(self) -> dict[str, int]:
        """Of its config and layers, by their digests; bytes."""
        return {each.digest: each.size for each in (self.manifest.config, *self.manifest.layers)}

    @property
    def while_loaded(self) -> Reference:
        """A name of ours."""
        return Reference(DEFAULT_REGISTRY, f"library/{LOADED}", short_id(self.id), None)


async def load_as(
    engine: Engine,
    name: Reference,
    image: NamedImage,
    opened: Callable[[Descriptor], IO[bytes]],
    left_out: Collection[str],
    last: Callable[[], object] = lambda: None,
) -> None:
    """Under `name`, without the layers `left_out`, which the Engine has; `last` is called before the archive's end.

    Raises EngineError, also where the Engine says that it loaded the archive, and has not what is in it.
    """
    archive = ImageArchive(name, image.manifest, image.index, opened, left_out=left_out, last=last)
    await engine.load_image(archive, name=image.reference.familiar())
    found = await find_image(engine, image.id if name.digest else name.familiar())
    if found is None or found.id != image.id:
        raise EngineError(f"image {image.reference.familiar()}: the Docker Engine has not made {image.id} of it")


async def remove_name(engine: Engine, name: str) -> None:
    """As far as it goes: there may be another name of it meanwhile, or no Engine."""
    with contextlib.suppress(EngineError):
        await engine.remove_image(name)
