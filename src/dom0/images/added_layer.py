"""An image that is one more layer on one that containerd keeps: loaded, with the layers below only named.

A build would compare all files of both images: where their times are of whole seconds, byte by byte. Of which blobs the
image below is made, the Engine says nowhere but in what it saves. So that is asked once, and remembered by its ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from dom0 import temporary
from dom0.durable import Unwritable, write_atomic
from dom0.engine.protocol import Engine
from dom0.errors import Final
from dom0.images import docker_cli, saved
from dom0.images.loading import NamedImage, load_as
from dom0.names import cache_directory
from dom0.registry.manifest import DOCKER_MANIFEST, Descriptor, ImageManifest, digest_of, parse_manifest, parse_platform
from dom0.registry.reference import parse

_LAYER = {DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar"}  # without a manifest of that type: OCI's
_CACHE = "made-of"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


class _MadeOf(msgspec.Struct, frozen=True):
    """What the image `id` is made of for `machine`, as the Engine has it."""

    id: str
    machine: str
    media_type: str
    manifest: bytes
    config: bytes


async def add(engine: Engine, below: str, layer: Path, *, tag: str, labels: Mapping[str, str], created: int) -> str:
    """The ID of the image of the tar `layer` on the image of the ID `below`. Raises Dom0Error, CommandFailed."""
    machine = (await engine.info()).machine
    made_of = _remembered(below, machine) or await _saved(below, machine)
    base = parse_manifest(made_of.manifest, made_of.media_type)
    assert isinstance(base, ImageManifest)
    with layer.open("rb") as opened:
        digest = f"sha256:{(await asyncio.to_thread(hashlib.file_digest, opened, 'sha256')).hexdigest()}"
        size = opened.tell()
    config = _config(made_of.config, digest, labels, created)
    manifest = _manifest(base, config, Descriptor(_LAYER.get(base.media_type, _OCI_LAYER), digest, size))

    def blob(wanted: Descriptor) -> IO[bytes]:
        return layer.open("rb") if wanted.digest == digest else io.BytesIO(config)

    reference = parse(tag)
    there = {each.digest for each in base.layers}
    await load_as(engine, reference, NamedImage(reference, manifest, None, manifest.digest), blob, there)
    return manifest.digest


def _remembered(image_id: str, machine: str) -> _MadeOf | None:
    """None also where what is there is not whole: the digest of one is in the other."""
    with contextlib.suppress(OSError, msgspec.DecodeError, Final):
        found = msgspec.json.decode((cache_directory() / _CACHE).read_bytes(), type=_MadeOf)
        manifest = parse_manifest(found.manifest, found.media_type)
        if (found.id, found.machine) == (image_id, machine) and isinstance(manifest, ImageManifest):
            return found if manifest.config.digest == digest_of(found.config) else None
    return None


async def _saved(image_id: str, machine: str) -> _MadeOf:
    with temporary.directory("below", temporary.LARGE) as directory:
        file = directory / "image.tar"
        await docker_cli.save([image_id], file)
        archive = await saved.read(file, parse_platform(f"linux/{machine}"))
        (image,) = archive.images
        with archive.opened(image.manifest.config) as opened:
            config = opened.read(image.manifest.config.size)
    made_of = _MadeOf(image_id, machine, image.manifest.media_type, image.manifest.raw, config)
    with contextlib.suppress(Unwritable):
        write_atomic(cache_directory() / _CACHE, msgspec.json.encode(made_of))
    return made_of


def _config(below: bytes, digest: str, labels: Mapping[str, str], created: int) -> bytes:
    time = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = msgspec.json.decode(below)
    document["created"] = time
    document["config"]["Labels"] = {**(document["config"].get("Labels") or {}), **labels}
    document["history"] = [*document.get("history", ()), {"created": time, "created_by": "dom0"}]
    document["rootfs"]["diff_ids"].append(digest)
    return msgspec.json.encode(document, order="sorted")


def _manifest(below: ImageManifest, config: bytes, layer: Descriptor) -> ImageManifest:
    document = {
        "schemaVersion": 2,
        "mediaType": below.media_type,
        "config": Descriptor(below.config.media_type, digest_of(config), len(config)),
        "layers": [*below.layers, layer],
    }
    made = parse_manifest(msgspec.json.encode(document), below.media_type)
    assert isinstance(made, ImageManifest)
    return made
