"""Archives of images in a file, as `docker save` and `dom0 image save` write them: what is in them, and of which layers
they only have the names.

Theory of operation: nothing in the file is believed. It is read once from its beginning to its end, and every blob has
to be what its name says. None is kept: what an image needs is read again from its place, and hashed again while it is
sent. Which images there are says index.json, which Docker writes since 25; its other lists of the same are not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import msgspec
from msgspec.structs import replace

from dom0.errors import Dom0Error, Final, UsageError
from dom0.registry.archive import diff_ids
from dom0.registry.manifest import (
    MANIFESTS,
    MOST_BYTES,
    OCI_INDEX,
    Descriptor,
    ImageManifest,
    Index,
    Platform,
    choose,
    naming,
    parse_manifest,
)
from dom0.registry.reference import Reference, parse
from dom0.socketproxy import tarstream
from dom0.socketproxy.imagearchive import MOST_FILES
from dom0.socketproxy.refusal import Refused

INDEX = "index.json"
_NAME = "io.containerd.image.name"  # the annotation with the whole name
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_PIECE = 1 << 20  # bytes
_AGAIN = "save it again, or copy it again: dom0 image save"


class SavedImage(msgspec.Struct, frozen=True, kw_only=True):
    names: tuple[Reference, ...]
    manifest: ImageManifest
    index: Index | None
    diff_ids: tuple[str, ...]

    def __str__(self) -> str:
        return self.names[0].familiar() if self.names else (self.index or self.manifest).digest


class _NamedManifest(msgspec.Struct):
    digest: str
    annotations: dict[str, str] = {}


class _NamedManifests(msgspec.Struct):
    manifests: list[_NamedManifest]


class SavedImages(msgspec.Struct, frozen=True):
    """`files` are all that are in `file`, by name; each of its blobs is what its name says."""

    file: Path
    files: dict[str, tarstream.TarMember]
    images: tuple[SavedImage, ...] = ()

    def find(self, digest: str) -> tarstream.TarMember | None:
        return self.files.get(f"blobs/{digest.replace(':', '/')}")

    def opened(self, blob: Descriptor) -> IO[bytes]:
        """At its beginning; it does not end where the blob does."""
        entry = self.find(blob.digest)
        assert entry is not None, blob
        return self.opened_at(entry)

    def opened_at(self, entry: tarstream.TarMember) -> IO[bytes]:
        opened = self.file.open("rb")
        opened.seek(entry.start)
        return opened

    def require_names(self) -> None:
        """Raises Dom0Error for an image that has none which can be given to it again: a digest is no such name."""
        for image in self.images:
            if not image.names or any(name.digest for name in image.names):
                raise Dom0Error(
                    f"{image}: has no name with a tag",
                    hint="save it by such a name; docker load takes it as it is, and leaves it without one",
                )

    def left_out(self, image: SavedImage) -> list[Descriptor]:
        """Layers of which the archive has only the names."""
        return [layer for layer in image.manifest.layers if self.find(layer.digest) is None]


async def read(file: Path, platform: Platform) -> SavedImages:
    """All images of the archive; of one for several platforms that for `platform`. Raises Dom0Error."""
    require_file(file)
    with _refusing(file):
        archive = SavedImages(file, await _files(file))
        raw = _document(archive, archive.files.get(INDEX), INDEX)
        listed = parse_manifest(raw, OCI_INDEX)
        names: dict[str, dict[Reference, None]] = {}
        for each in msgspec.json.decode(raw, type=_NamedManifests).manifests:
            name = each.annotations.get(_NAME)
            names.setdefault(each.digest, {}).update({parse(name): None} if name else {})
        assert isinstance(listed, Index)
        tops = {entry.descriptor.digest: entry.descriptor for entry in listed.entries}
        images = [_image(archive, top, tuple(names[digest]), platform) for digest, top in tops.items()]
        return replace(archive, images=tuple(images))


def require_file(file: Path) -> None:
    """Devices and pipes have no end, and cannot be read twice. Raises UsageError."""
    if not file.is_file():
        raise UsageError(f"{file}: is no file", hint="copy what it brings into one")


@contextlib.contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Raises Dom0Error for all that can be wrong with an archive."""
    try:
        yield
    except (Refused, Final, UsageError) as error:
        raise Dom0Error(f"{file}: {error.message}", hint=getattr(error, "hint", "") or _AGAIN) from error
    except msgspec.DecodeError as error:
        raise Dom0Error(f"{file}: {INDEX}: {error}", hint=_AGAIN) from error
    except OSError as error:
        raise Dom0Error(f"{file}: cannot be read: {error.strerror}", hint="is the stick still there? dmesg") from error


async def _files(file: Path) -> dict[str, tarstream.TarMember]:
    found: dict[str, tarstream.TarMember] = {}
    entry, digest = tarstream.TarMember(name=""), hashlib.sha256()
    async for event in tarstream.read(_pieces(file)):
        if not isinstance(event, tarstream.TarMember):
            digest.update(event)
            continue
        _check_digest(entry, digest.hexdigest())
        entry, digest = event, hashlib.sha256()
        if entry.type == tarstream.DIRECTORY:
            continue
        if entry.type != tarstream.FILE:
            raise Final(f"{entry.name}: is a link")
        if entry.name in found:
            raise Final(f"{entry.name}: is there twice")
        if len(found) == MOST_FILES:
            raise Final(f"more than {MOST_FILES} files")
        found[entry.name] = entry
    _check_digest(entry, digest.hexdigest())
    return found


def _check_digest(entry: tarstream.TarMember, digest: str) -> None:
    if (named := _BLOB.fullmatch(entry.name)) and named[1] != digest:
        raise Final(f"{entry.name}: is damaged: its digest is {digest}")


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        piece = opened.read(_PIECE)
        if piece.startswith(tarstream.GZIP):  # where something lies in it would be known to nobody
            raise Final("is compressed", hint=f"gunzip it first: gunzip <{file.name} >images.tar")
        while piece:
            yield piece
            piece = await asyncio.to_thread(opened.read, _PIECE)


def _image(archive: SavedImages, top: Descriptor, names: tuple[Reference, ...], platform: Platform) -> SavedImage:
    with naming(names[0].familiar() if names else top.digest):
        found: ImageManifest | Index = _manifest(archive, top)
        index = None
        if isinstance(found, Index):
            index = found
            here = tuple(
                entry
                for entry in index.entries
                if entry.descriptor.media_type in MANIFESTS and archive.find(entry.descriptor.digest)
                if not (entry.platform and entry.platform.os == "unknown")  # which says how an image was built
            )
            only = here[0].descriptor if len(here) == 1 else None  # whichever it is: somebody wanted that one
            found = _manifest(archive, only or choose(replace(index, entries=here), platform))
            if isinstance(found, Index):
                raise Final(f"{found.digest}: is an index in an index")
        for blob in (found.config, *found.layers):
            entry = archive.find(blob.digest)
            if entry and entry.size != blob.size:
                raise Final(f"{blob.digest}: has {entry.size} bytes in the archive, and {blob.size} in the image")
        config = _document(archive, archive.find(found.config.digest), f"config {found.config.digest}")
        return SavedImage(names=names, manifest=found, index=index, diff_ids=diff_ids(config, found))


def _manifest(archive: SavedImages, descriptor: Descriptor) -> ImageManifest | Index:
    raw = _document(archive, archive.find(descriptor.digest), f"manifest {descriptor.digest}")
    return parse_manifest(raw, descriptor.media_type)


def _document(archive: SavedImages, entry: tarstream.TarMember | None, what: str) -> bytes:
    if entry is None:
        raise Final(f"{what}: is not in it", hint="docker load takes archives of a Docker before 25" * (what == INDEX))
    if entry.size > MOST_BYTES:
        raise Final(f"{what}: is longer than {MOST_BYTES >> 20} MiB")
    with archive.opened_at(entry) as opened:
        return opened.read(entry.size)
