"""What an archive of images may be, and what is refused of one. The Engine's own archives: test_load.py."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dom0 import temporary
from dom0.durable import Unwritable
from dom0.errors import Dom0Error
from dom0.images.layer_list import ImageLayers, Layer, not_needed, read_there
from dom0.images.save import save_without
from dom0.images.saved import SavedImages, read
from dom0.registry.manifest import CONFIGS, LAYERS, OCI_INDEX, OCI_MANIFEST, Platform, digest_of
from dom0.testing.tars import tar_of

HERE = Platform("linux", "amd64", "v1")
LOWER, UPPER = tar_of({"lower": b"1"}), tar_of({"upper": b"2"})
Files = dict[str, bytes]


def path_of(content: bytes) -> str:
    return f"blobs/{digest_of(content).replace(':', '/')}"


def described(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def archive_of(images: Mapping[str, tuple[bytes, ...]]) -> Files:
    """Images of layers, by name, as `docker save` writes them."""
    files: Files = {}
    listed = []
    for name, layers in images.items():
        config = json.dumps({"rootfs": {"diff_ids": [digest_of(layer) for layer in layers]}}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described(config, CONFIGS[0]),
                "layers": [described(layer, LAYERS[0]) for layer in layers],
            }
        ).encode()
        files |= {path_of(content): content for content in (config, manifest, *layers)}
        named = {"annotations": {"io.containerd.image.name": name}} if name else {}
        listed.append(described(manifest, OCI_MANIFEST, **named))
    return files | {"index.json": json.dumps({"schemaVersion": 2, "manifests": listed}).encode()}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        file = tmp_path / "images.tar"
        file.write_bytes(content)
        return file

    return write


async def test_an_image_with_two_names_is_one_with_its_layers(written: Callable[[bytes], Path]) -> None:
    files = archive_of({"docker.io/library/app:1": (LOWER, UPPER)})
    index = json.loads(files["index.json"])
    other = {**index["manifests"][0], "annotations": {"io.containerd.image.name": "registry.example/app:2"}}
    files["index.json"] = json.dumps({**index, "manifests": [*index["manifests"], other]}).encode()
    found = await read(written(tar_of(files)), HERE)
    (image,) = found.images
    assert [name.familiar() for name in image.names] == ["app:1", "registry.example/app:2"]
    assert image.diff_ids == (digest_of(LOWER), digest_of(UPPER))
    with found.opened(image.manifest.layers[1]) as opened:
        assert opened.read(len(UPPER)) == UPPER


async def test_of_a_layer_that_is_left_out_the_name_is_there(written: Callable[[bytes], Path]) -> None:
    files = archive_of({"docker.io/library/app:1": (LOWER, UPPER)})
    del files[path_of(LOWER)]
    found = await read(written(tar_of(files)), HERE)
    assert [layer.digest for layer in found.left_out(found.images[0])] == [digest_of(LOWER)]


def without(what: str) -> Callable[[Files], bytes]:
    def change(files: Files) -> bytes:
        return tar_of({name: content for name, content in files.items() if not content.startswith(what.encode())})

    return change


def with_file(name: str, content: bytes) -> Callable[[Files], bytes]:
    return lambda files: tar_of({**files, name: content})


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


def endless() -> bytes:
    entry = tarfile.TarInfo("index.json")
    entry.size = 1 << 50
    return entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096)


HOSTILE: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "another digest than its name": (with_file(path_of(UPPER), UPPER[:-1] + b"x"), "is damaged: its digest is"),
    "a name that leads out": (with_file("../../etc/passwd", b"x"), "leads out of the archive"),
    "an absolute name": (with_file("/etc/passwd", b"x"), "leads out of the archive"),
    "a link": (lambda files: tar_of(files, link("blobs/sha256/link", "/etc/shadow")), "is a link"),
    "a file twice": (lambda files: tar_of(files, tarfile.TarInfo("index.json")), "is there twice"),
    "compressed": (lambda files: gzip.compress(tar_of(files)), "is compressed"),
    "cut off": (lambda files: tar_of(files)[:700], "ends before its end"),
    "longer than the file": (lambda files: endless(), "ends before its end"),
    "no archive": (lambda files: b"x" * 5000, "no header"),
    "nothing": (lambda files: b"", "ends before its end"),
    "more files than images have": (
        lambda files: tar_of({f"blobs/{number}": b"" for number in range(10_002)}),
        "more than 10000 files",
    ),
    "without a list": (lambda files: tar_of({"manifest.json": b"[]"}), "index.json: is not in it"),
    "a list that is no JSON": (with_file("index.json", b"{"), "manifest: no JSON"),
    "a list that is one image": (
        lambda files: tar_of({**files, "index.json": next(v for v in files.values() if b'"layers"' in v)}),
        "index",
    ),
    "a long list": (with_file("index.json", b" " * ((4 << 20) + 1)), "longer than 4 MiB"),
    "a name that is none": (
        lambda files: tar_of({**files, "index.json": files["index.json"].replace(b"library/app", b"Library/../app")}),
        "no name of an image",
    ),
    "another size than it has": (
        lambda files: tar_of(archive_of_another_size()),
        "bytes in the archive, and",
    ),
    "without its config": (without('{"rootfs"'), "config sha256:"),
    "without its manifest": (
        without('{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest'),
        "manifest sha256:",
    ),
}


def archive_of_another_size() -> Files:
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(LOWER)]}}).encode()
    layer = {**described(LOWER, LAYERS[0]), "size": len(LOWER) + 1}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, CONFIGS[0]),
        "layers": [layer],
    }
    manifest = json.dumps(document).encode()
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(manifest, OCI_MANIFEST)]}
    return {path_of(c): c for c in (config, manifest, LOWER)} | {"index.json": json.dumps(index).encode()}


@pytest.mark.parametrize("case", HOSTILE)
async def test_what_is_wrong_with_an_archive_is_refused_by_name(written: Callable[[bytes], Path], case: str) -> None:
    make, why = HOSTILE[case]
    file = written(make(archive_of({"docker.io/library/app:1": (LOWER, UPPER)})))
    with pytest.raises(Dom0Error, match=why) as refused:
        await read(file, HERE)
    assert refused.value.message.startswith(f"{file}: ")
    assert refused.value.hint


async def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source in (pipe, Path("/dev/zero")):
        with pytest.raises(Dom0Error, match="is no file"):
            await read(source, HERE)
        with pytest.raises(Dom0Error, match="is no file"):
            await read_there(source, HERE)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `docker save` writes, without an Engine."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(f'#!/bin/sh\nln "{tmp_path}/whole.tar" "${{2#--output=}}"\n')
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(temporary, "LARGE", tmp_path)
    return tmp_path / "whole.tar"


def test_a_stick_that_takes_no_more_is_named_and_keeps_what_it_had(docker: Path, tmp_path: Path) -> None:
    docker.write_bytes(tar_of(archive_of({"docker.io/library/app:1": (LOWER, bytes(2 << 20))})))
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "images.tar").write_text("of yesterday")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(Unwritable, match=f"{stick}/images.tar: cannot be written: File too large"):
            asyncio.run(save_without(["app:1"], stick / "images.tar", [], HERE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in stick.iterdir()] == ["images.tar"]
    assert (stick / "images.tar").read_text() == "of yesterday"


def test_what_a_killed_save_left_goes_with_the_next_one(docker: Path, tmp_path: Path) -> None:
    docker.write_bytes(tar_of(archive_of({"docker.io/library/app:1": (LOWER,)})))
    left = tmp_path / f"dom0-{os.getuid()}/save-left"
    left.mkdir(parents=True)
    saving = save_without(["app:1"], tmp_path / "images.tar", [has((LOWER, None))], HERE)
    assert asyncio.run(saving) == len(LOWER)
    assert list(left.parent.iterdir()) == []


def has(*layers: tuple[bytes, bytes | None]) -> ImageLayers:
    """`layers`: content of the tar, and of the blob where one is there."""
    found = (Layer(diff_id=digest_of(tar), digest=digest_of(blob) if blob else "") for tar, blob in layers)
    return ImageLayers(id="", names=(), layers=tuple(found))


PACKED = gzip.compress(LOWER)
THERE: dict[str, tuple[list[ImageLayers], set[bytes]]] = {
    "nothing is there": ([], set()),
    "the lower layer, unpacked": ([has((LOWER, None))], {LOWER}),
    "the lower layer, as this blob": ([has((LOWER, LOWER))], {LOWER}),
    "the lower layer, as another blob": ([has((LOWER, PACKED))], set()),
    "the upper layer on another one": ([has((PACKED, None), (UPPER, None))], set()),
    "both, of which another image has the lower one only": (
        [has((LOWER, None)), has((LOWER, None), (UPPER, None))],
        {LOWER},
    ),
}


@pytest.mark.parametrize("case", THERE)
async def test_left_out_is_what_no_image_needs_there(written: Callable[[bytes], Path], case: str) -> None:
    there, expected = THERE[case]
    images = {"docker.io/library/app:1": (LOWER, UPPER), "docker.io/library/upper:1": (UPPER,)}
    found: SavedImages = await read(written(tar_of(archive_of(images))), HERE)
    assert not_needed(found, there) == {digest_of(layer) for layer in expected}


async def test_an_archive_says_what_is_there_as_a_list_does(written: Callable[[bytes], Path]) -> None:
    file = written(tar_of(archive_of({"docker.io/library/app:1": (LOWER, UPPER)})))
    (image,) = await read_there(file, HERE)
    assert image == has((LOWER, LOWER), (UPPER, UPPER))
    file.write_text(json.dumps([{"id": "", "names": [], "layers": [{"diff_id": digest_of(LOWER)}]}]))
    assert await read_there(file, HERE) == [has((LOWER, None))]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "is neither"),
        ("\x1f\x8b", "is neither"),
        ("[", "no list of layers"),
        ("[{}]", "no list of layers"),
        ('[{"id": "", "names": [], "layers": [{"diff_id": "../x"}]}]', "is no digest"),
        ('[{"id": "", "names": [], "layers": [{"diff_id": "sha256:1"}]}]', "is no digest"),
        ("IMAGE  LAYER\n", "neither an archive of images nor a list of layers"),
    ],
)
async def test_what_is_no_list_is_refused(written: Callable[[bytes], Path], content: str, why: str) -> None:
    with pytest.raises(Dom0Error, match=why) as refused:
        await read_there(written(content.encode()), HERE)
    assert refused.value.hint


@pytest.mark.parametrize("name", ["", f"docker.io/library/app@{digest_of(LOWER)}"])
async def test_a_name_has_to_be_one_that_can_be_given_again(written: Callable[[bytes], Path], name: str) -> None:
    found = await read(written(tar_of(archive_of({name: (LOWER,)}))), HERE)
    with pytest.raises(Dom0Error, match="has no name with a tag"):
        found.require_names()


def index_of(files: Files, *platforms: str) -> Files:
    """All that is in `files` below an index of these platforms, of which only the first one's image is there."""
    index = json.loads(files["index.json"])
    (top,) = index["manifests"]
    listed = [
        {"mediaType": OCI_MANIFEST, "digest": digest_of(bytes([number])), "size": 1}
        | ({key: top[key] for key in ("digest", "size")} if number == 0 else {})
        | {"platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True))}
        for number, platform in enumerate(platforms)
    ]
    whole = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()
    index["manifests"] = [described(whole, OCI_INDEX, annotations=top["annotations"])]
    return {**files, path_of(whole): whole, "index.json": json.dumps(index).encode()}


@pytest.mark.parametrize("platforms", [("linux/amd64", "unknown/unknown"), ("linux/arm64", "linux/amd64")])
async def test_of_an_index_the_image_that_is_there_is_meant(
    written: Callable[[bytes], Path], platforms: tuple[str, ...]
) -> None:
    files = archive_of({"docker.io/library/app:1": (LOWER,)})
    (image,) = (await read(written(tar_of(index_of(files, *platforms))), HERE)).images
    assert image.diff_ids == (digest_of(LOWER),)
    assert image.index is not None
