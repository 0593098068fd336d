"""An image as one tar stream that `docker load` takes, whichever way an Engine keeps its images: an OCI layout and
`manifest.json` in one. Nothing here knows an Engine.

Theory of operation: nothing is believed of what lies on the disk. Each blob is hashed once more while it is sent, and
the archive breaks off before its last bytes where one is wrong: the Engine then has read an archive without an end, and
loads nothing of it. Layers may be left out that the Engine has: `docker load` looks for a file only if it needs it.

Sources: moby's `image/tarexport/load.go`; containerd's `core/images/archive/importer.go`; OCI image-spec
`image-layout.md`.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Collection, Iterator
from typing import IO

import msgspec

from dom0.errors import Final
from dom0.registry.manifest import OCI_INDEX, Descriptor, ImageManifest, Index
from dom0.registry.reference import Reference, digest_flaw
from dom0.wording import excerpt

PIECE = 64 << 10  # bytes
_BLOCK = 512  # bytes, of a tar
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class DamagedArchive(OSError):
    """A blob on the disk is not what its digest says."""

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(f"{descriptor.digest}: is damaged")
        self.descriptor = descriptor


class ImageArchive:
    """Read from its beginning, once. `blob` opens a config or layer; `left_out` are digests of layers. `last` is called
    before the end, and what it raises is raised in its place.

    An image that a digest names gets no name in the graph driver's store: there only a pull can give it that one.
    """

    def __init__(
        self,
        reference: Reference,
        image: ImageManifest,
        index: Index | None,
        blob: Callable[[Descriptor], IO[bytes]],
        *,
        left_out: Collection[str] = (),
        last: Callable[[], object] = lambda: None,
    ) -> None:
        blobs = {each.digest: each for each in (image.config, *image.layers) if each.digest not in left_out}
        self._pieces = filter(None, _archive(_documents(reference, image, index), tuple(blobs.values()), blob, last))

    def read(self, size: int, /) -> bytes:
        """The next piece, at most 64 KiB whatever `size` is; an empty one is the end.

        Raises DamagedArchive, and OSError for a blob that cannot be read.
        """
        return next(self._pieces, b"")


def diff_ids(config: bytes, image: ImageManifest) -> tuple[str, ...]:
    """Digests of the layers' tars as the config has them, the lowest first. Raises Final for a config of another image.

    Whether a layer's tar has that digest is for the Engine to see, which unpacks it.
    """
    try:
        found = msgspec.json.decode(config, type=_Config).rootfs.diff_ids
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Final(f"config {image.config.digest}: makes no sense: {excerpt(str(error))}") from error
    for each in found:
        if flaw := digest_flaw(each):
            raise Final(f"config {image.config.digest}: {flaw}")
    if len(found) != len(image.layers):
        raise Final(f"config {image.config.digest}: is of {len(found)} layers, and the image has {len(image.layers)}")
    return tuple(found)


class _RootFs(msgspec.Struct):
    diff_ids: list[str] = []


class _Config(msgspec.Struct):
    rootfs: _RootFs


def _documents(reference: Reference, image: ImageManifest, index: Index | None) -> dict[str, bytes]:
    """Files that say what the blobs are."""
    top = index or image
    name = {"io.containerd.image.name": str(reference), "org.opencontainers.image.ref.name": reference.wanted}
    entry = {"mediaType": top.media_type, "digest": top.digest, "size": len(top.raw), "annotations": name}
    saved = {
        "Config": _path(image.config.digest),
        "RepoTags": [] if reference.digest else [reference.familiar()],
        "Layers": [_path(layer.digest) for layer in image.layers],
    }
    return {
        "oci-layout": _LAYOUT,
        "index.json": msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}),
        "manifest.json": msgspec.json.encode([saved]),
    } | {_path(document.digest): document.raw for document in (index, image) if document}


def _archive(
    documents: dict[str, bytes],
    blobs: tuple[Descriptor, ...],
    opened: Callable[[Descriptor], IO[bytes]],
    last: Callable[[], object],
) -> Iterator[bytes]:
    for name, content in documents.items():
        file = _head(name, len(content)) + content + bytes(-len(content) % _BLOCK)
        yield from (file[start : start + PIECE] for start in range(0, len(file), PIECE))
    for descriptor in blobs:
        yield _head(_path(descriptor.digest), descriptor.size)
        digest, left = hashlib.sha256(), descriptor.size
        with opened(descriptor) as blob:
            while left and (piece := blob.read(min(left, PIECE))):
                digest.update(piece)
                left -= len(piece)
                yield piece
        if left or f"sha256:{digest.hexdigest()}" != descriptor.digest:
            raise DamagedArchive(descriptor)
        yield bytes(-descriptor.size % _BLOCK)
    last()
    yield bytes(2 * _BLOCK)


def _head(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)  # says more than 8 GiB too


def _path(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"blobs/{algorithm}/{digits}"
