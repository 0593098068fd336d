"""An image as one archive: what is in it, and where it breaks off."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import IO, Any

import msgspec
import pytest

from dom0.errors import Final
from dom0.registry.archive import PIECE, DamagedArchive, ImageArchive, diff_ids
from dom0.registry.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, ImageManifest, Index, parse_manifest
from dom0.registry.reference import parse

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(content), "size": len(content)}


def image_of(config: bytes, *layers: bytes) -> ImageManifest:
    raw = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(CONFIG, config),
            "layers": [described(LAYER, layer) for layer in layers],
        }
    )
    found = parse_manifest(raw, OCI_MANIFEST)
    assert isinstance(found, ImageManifest)
    return found


def config_of(*tars: bytes) -> bytes:
    return msgspec.json.encode({"rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}})


CONFIG_HERE = config_of(b"below", b"above")
BELOW, ABOVE = b"b" * (PIECE + 1), b"a" * 512
IMAGE = image_of(CONFIG_HERE, BELOW, ABOVE)
BLOBS = {digest(content): content for content in (CONFIG_HERE, BELOW, ABOVE)}


def packed(
    reference: str, *, index: Index | None = None, left_out: tuple[str, ...] = (), blobs: Mapping[str, bytes] = BLOBS
) -> tuple[bytes, DamagedArchive | None]:
    """What could be read, and why no more."""

    def opened(descriptor: Descriptor) -> IO[bytes]:
        return io.BytesIO(blobs[descriptor.digest])

    archive, read = ImageArchive(parse(reference), IMAGE, index, opened, left_out=left_out), b""
    try:
        while piece := archive.read(PIECE):
            assert len(piece) <= PIECE
            read += piece
    except DamagedArchive as error:
        return read, error
    return read, None


def unpacked(content: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            assert entry.name not in files
            files[entry.name] = file.read()
    return files


def path(content: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"


def test_an_image_is_an_oci_layout_and_what_docker_saves_in_one() -> None:
    content, damage = packed("registry.example:5000/team/app:1")
    assert damage is None
    assert content.endswith(bytes(1024))
    files = unpacked(content)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert (entry["digest"], entry["size"], entry["mediaType"]) == (IMAGE.digest, len(IMAGE.raw), OCI_MANIFEST)
    assert entry["annotations"] == {
        "io.containerd.image.name": "registry.example:5000/team/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    assert json.loads(files["manifest.json"]) == [
        {
            "Config": path(CONFIG_HERE),
            "RepoTags": ["registry.example:5000/team/app:1"],
            "Layers": [path(BELOW), path(ABOVE)],
        }
    ]
    assert all(files[path(content)] == content for content in (CONFIG_HERE, BELOW, ABOVE, IMAGE.raw))


def test_the_name_is_the_full_one_for_containerd_and_the_short_one_for_people() -> None:
    files = unpacked(packed("redis")[0])
    name = json.loads(files["index.json"])["manifests"][0]["annotations"]["io.containerd.image.name"]
    assert (name, json.loads(files["manifest.json"])[0]["RepoTags"]) == (
        "docker.io/library/redis:latest",
        ["redis:latest"],
    )


def test_an_image_that_a_digest_names_has_no_tag() -> None:
    files = unpacked(packed(f"redis@{IMAGE.digest}")[0])
    name = json.loads(files["index.json"])["manifests"][0]["annotations"]["io.containerd.image.name"]
    assert (name, json.loads(files["manifest.json"])[0]["RepoTags"]) == (f"docker.io/library/redis@{IMAGE.digest}", [])


def test_of_an_index_the_archive_has_the_index_and_the_one_manifest() -> None:
    entry = {**described(OCI_MANIFEST, IMAGE.raw), "platform": {"os": "linux", "architecture": "amd64"}}
    raw = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    index = parse_manifest(raw, OCI_INDEX)
    assert isinstance(index, Index)
    files = unpacked(packed("redis:7", index=index)[0])
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == digest(raw)
    assert (files[path(raw)], files[path(IMAGE.raw)]) == (raw, IMAGE.raw)


def test_a_layer_that_is_left_out_is_named_and_not_opened() -> None:
    blobs = {key: content for key, content in BLOBS.items() if content != BELOW}
    files = unpacked(packed("redis:7", left_out=(digest(BELOW),), blobs=blobs)[0])
    assert path(BELOW) not in files
    assert json.loads(files["manifest.json"])[0]["Layers"] == [path(BELOW), path(ABOVE)]


@pytest.mark.parametrize("wrong", [b"c" + BELOW[1:], BELOW[:-1], b""], ids=["changed", "cut", "empty"])
def test_an_archive_ends_early_where_a_blob_is_damaged(wrong: bytes) -> None:
    content, damage = packed("redis:7", blobs=BLOBS | {digest(BELOW): wrong})
    assert damage is not None
    assert damage.descriptor.digest == digest(BELOW)
    assert path(ABOVE).encode() not in content.partition(path(BELOW).encode() + b"\0")[2]
    assert not content.endswith(bytes(1024))


def test_the_same_layer_twice_is_in_the_archive_once() -> None:
    image = image_of(config_of(b"same", b"same"), ABOVE, ABOVE)
    blobs = {digest(content): content for content in (config_of(b"same", b"same"), ABOVE)}
    archive, content = ImageArchive(parse("redis"), image, None, lambda each: io.BytesIO(blobs[each.digest])), b""
    while piece := archive.read(PIECE):
        content += piece
    assert json.loads(unpacked(content)["manifest.json"])[0]["Layers"] == [path(ABOVE), path(ABOVE)]


def test_a_config_says_what_its_layers_are_unpacked() -> None:
    assert diff_ids(CONFIG_HERE, IMAGE) == (digest(b"below"), digest(b"above"))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (config_of(b"below"), "is of 1 layers, and the image has 2"),
        (config_of(b"below", b"above", b"more"), "is of 3 layers, and the image has 2"),
        (b'{"rootfs": {"diff_ids": ["sha256:a", "sha256:b"]}}', "no digest"),
        (b'{"rootfs": {"diff_ids": 2}}', "makes no sense"),
        (b"{}", "makes no sense"),
        (b"\xff", "makes no sense"),
        (b"[" * 100_000, "makes no sense"),
    ],
)
def test_a_config_of_another_image_is_refused(config: bytes, what: str) -> None:
    with pytest.raises(Final, match=what):
        diff_ids(config, IMAGE)
