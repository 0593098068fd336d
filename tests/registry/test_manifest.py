"""Manifests of both kinds are read, and whatever else a registry may send is refused by name."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from dom0.errors import Final
from dom0.registry.manifest import (
    ACCEPTED,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MOST_BYTES,
    MOST_LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageManifest,
    Index,
    Platform,
    choose,
    digest_of,
    parse_manifest,
    parse_platform,
)

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def described(kind: str, number: int = 1, size: Any = 1000) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{number:064x}", "size": size}


def image(**keys: Any) -> bytes:
    config, layers = described(OCI_CONFIG), [described(OCI_LAYER, 2), described(OCI_LAYER, 3)]
    return json.dumps({"schemaVersion": 2, "config": config, "layers": layers, **keys}).encode()


def index(*platforms: str | None, kind: str = OCI_MANIFEST) -> Index:
    """One manifest for each, with the digests 0, 1, 2 …"""
    entries = []
    for number, platform in enumerate(platforms):
        entry = described(kind, number)
        if platform is not None:
            entry["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        entries.append(entry)
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    found = parse_manifest(raw, OCI_INDEX)
    assert isinstance(found, Index)
    return found


def test_an_image_of_either_kind_is_read() -> None:
    for kind, config, layer in ((OCI_MANIFEST, OCI_CONFIG, OCI_LAYER), (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)):
        raw = image(mediaType=kind, config=described(config), layers=[described(layer, 2)])
        assert parse_manifest(raw, kind) == ImageManifest(
            Descriptor(config, f"sha256:{1:064x}", 1000),
            (Descriptor(layer, f"sha256:{2:064x}", 1000),),
            raw,
            kind,
            digest_of(raw),
        )


def test_a_plain_file_server_may_leave_the_media_type_to_the_manifest() -> None:
    for said in ("", "application/json; charset=utf-8", "application/octet-stream"):
        assert parse_manifest(image(mediaType=DOCKER_MANIFEST), said).media_type == DOCKER_MANIFEST
        assert parse_manifest(image(), said).media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    ("raw", "said", "why"),
    [
        (b"", OCI_MANIFEST, "no JSON"),
        (b"<html>", OCI_MANIFEST, "no JSON"),
        (b"\xff{}", OCI_MANIFEST, "no JSON"),
        (image().decode().encode("utf-16"), OCI_MANIFEST, "no JSON"),
        (b"[" * 100_000, OCI_MANIFEST, "no JSON"),
        (b'{"schemaVersion": 2, "size": NaN}', OCI_MANIFEST, "no JSON"),
        (b'{"schemaVersion": 2, "size": ' + b"9" * 10_000 + b"}", OCI_MANIFEST, "no JSON"),
        (image()[:-1] + b', "layers": []}', OCI_MANIFEST, "twice"),
        (image()[:-1] + b', "Layers": []}', OCI_MANIFEST, "twice"),
        (b" " * MOST_BYTES + b"{}", OCI_MANIFEST, "longer than 4 MiB"),
        (b"[]", OCI_MANIFEST, "makes no sense"),
        (b"{}", OCI_MANIFEST, "makes no sense"),
        (b'{"schemaVersion": 1, "fsLayers": []}', OCI_MANIFEST, "schema 1"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (image(schemaVersion=3), OCI_MANIFEST, "schema 3"),
        (image(mediaType=DOCKER_MANIFEST), OCI_MANIFEST, "says that it is"),
        (image(), "text/html", "text/html is not supported"),
        (image(mediaType="application/x-helm"), "", "application/x-helm is not supported"),
        (image(manifests=[]), OCI_MANIFEST, "no manifests"),
        (image(manifests=[]), OCI_INDEX, "neither config nor layers"),
        (image(layers=None), OCI_MANIFEST, "has a config and layers"),
        (image(config=None), OCI_MANIFEST, "has a config and layers"),
        (image(config=described("application/vnd.cncf.helm.config.v1+json")), OCI_MANIFEST, "not a container image"),
        (image(config=described(OCI_CONFIG, size=9 << 20)), OCI_MANIFEST, "cannot have"),
        (image(layers=[described("application/x-layer")]), OCI_MANIFEST, "application/x-layer are not supported"),
        (
            image(layers=[described("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]),
            OCI_MANIFEST,
            r"foreign \(non-distributable\) layer",
        ),
        (
            image(layers=[described("application/vnd.oci.image.layer.nondistributable.v1.tar")]),
            OCI_MANIFEST,
            r"foreign \(non-distributable\) layer",
        ),
        (image(layers=[described(OCI_LAYER, n) for n in range(MOST_LAYERS + 1)]), OCI_MANIFEST, "257 layers"),
        (image(layers=[described(OCI_LAYER, size=-1)]), OCI_MANIFEST, "cannot have -1 bytes"),
        (image(layers=[described(OCI_LAYER, size=1 << 62)]), OCI_MANIFEST, "cannot have"),
        (image(layers=[described(OCI_LAYER, n, 200 << 30) for n in (1, 2)]), OCI_MANIFEST, "more than 256 GiB"),
        (image(layers=[described(OCI_LAYER, size="1")]), OCI_MANIFEST, "makes no sense"),
        (image(layers=[described(OCI_LAYER, size=True)]), OCI_MANIFEST, "makes no sense"),
        (image(layers=[described(OCI_LAYER), described(OCI_LAYER, size=1)]), OCI_MANIFEST, "two sizes"),
        (image(layers=[described(OCI_LAYER) | {"digest": "sha512:" + "0" * 128}]), OCI_MANIFEST, "sha512"),
        (image(layers=[described(OCI_LAYER) | {"digest": "sha256:../../x"}]), OCI_MANIFEST, "is no digest"),
    ],
)
def test_what_is_no_image_is_refused_by_name(raw: bytes, said: str, why: str) -> None:
    with pytest.raises(Final, match=why) as refused:
        parse_manifest(raw, said)
    assert refused.value.message.startswith("manifest: ")
    assert refused.value.message.isprintable()


ODD: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x", "\ud800", [], {}, [None], [[]], [{}])


@pytest.mark.parametrize("said", ["", *ACCEPTED])
@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_whatever_comes_is_read_or_refused(odd: Any, said: str) -> None:
    whole = json.loads(image(mediaType=said or OCI_MANIFEST, manifests=[described(OCI_MANIFEST)]))
    places = (whole, whole["config"], whole["layers"][0], whole["manifests"][0])
    documents = [odd, *(oddly(whole, place, key, odd) for place in places for key in (*place, "platform"))]
    for document in documents:
        for kinds in (("manifests",), ("config", "layers"), ()):
            left = {k: v for k, v in document.items() if k not in kinds} if isinstance(document, dict) else document
            raw = json.dumps(left).encode()
            with contextlib.suppress(Final):
                assert parse_manifest(raw, said).digest == digest_of(raw)


def oddly(whole: dict[str, Any], place: dict[str, Any], key: str, odd: Any) -> Any:
    """A copy of `whole` with `odd` in that place."""
    kept = place.get(key)
    place[key] = odd
    copy = json.loads(json.dumps(whole))
    place[key] = kept
    return copy


@pytest.mark.parametrize(
    ("platform", "there", "expected"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/x86_64", ["linux/amd64"], 0),
        ("linux/armv7l", ["linux/arm64", "linux/arm/v6", "linux/arm/v7"], 2),
        ("linux/armv6l", ["linux/arm/v7", "linux/arm/v6"], 1),
        ("linux/armv5tel", ["linux/arm/v6", "linux/arm/v5"], 1),
        ("linux/armv8l", ["linux/arm64", "linux/arm/v7"], 1),
        ("linux/loongarch64", ["linux/loong64"], 0),
        ("linux/i586", ["linux/386"], 0),
        ("linux/amd64", ["windows/amd64", "linux/amd64", "linux/amd64"], 1),
        ("linux/amd64", [None, "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", None], 1),
        ("linux/riscv64", ["unknown/unknown", "linux/riscv64"], 1),
    ],
)
def test_the_manifest_of_a_platform_is_chosen_as_containerd_does(
    platform: str, there: list[str | None], expected: int
) -> None:
    assert choose(index(*there), parse_platform(platform)).digest == f"sha256:{expected:064x}"


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (["linux/arm64", "linux/amd64/v2", "unknown/unknown"], "it has linux/amd64/v2, linux/arm64$"),
        ([], "none that can be read"),
    ],
)
def test_a_platform_that_is_not_there_is_refused_with_those_that_are(there: list[str], why: str) -> None:
    with pytest.raises(Final, match=f"nothing for linux/amd64; .*{why}"):
        choose(index(*there), parse_platform("linux/amd64"))


def test_an_index_in_an_index_is_not_chosen() -> None:
    with pytest.raises(Final, match="nothing for"):
        choose(index("linux/amd64", kind=OCI_INDEX), Platform("linux", "amd64", "v1"))


def test_an_index_may_name_so_many_platforms_only() -> None:
    with pytest.raises(Final, match="1025 platforms"):
        index(*["linux/amd64"] * 1025)


def test_a_docker_list_is_an_index() -> None:
    raw = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}).encode()
    assert isinstance(parse_manifest(raw, DOCKER_LIST), Index)


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/ärm"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no platform"):
        parse_platform(text)
