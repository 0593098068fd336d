"""What a registry says an image is made of: Docker's schema 2 and OCI's. Pure, and suspicious of every byte.

Sources: distribution's `manifest-v2-2.md`; OCI image-spec `manifest.md`, `image-index.md`, `media-types.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from dom0 import strict_json
from dom0.errors import Final
from dom0.registry.reference import digest_flaw
from dom0.wording import excerpt

MOST_BYTES = 4 << 20  # of a manifest or index; containerd and Docker's registry take no more
MOST_CONFIG_BYTES = 8 << 20
MOST_LAYERS = 256  # the Engine's own store takes 125, containerd's what fits into a mount's options
MOST_IMAGE_BYTES = 256 << 30  # of all layers
MOST_PLATFORMS = 1024

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
ACCEPTED = (*INDEXES, *MANIFESTS)
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
LAYERS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"
_UNSAID = (
    "",
    "application/json",
    "application/octet-stream",
    "text/plain",
)  # by registries that are plain file servers
_ELSEWHERE = ("foreign", "nondistributable")  # in the types of layers that no registry has

_OTHER_NAMES = {  # of architecture and variant: those of containerd, and of uname -m, as Engines say it
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "armv5tejl": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
}
_VARIANTS = {"amd64": ("v4", "v3", "v2", "v1"), "arm": ("v8", "v7", "v6", "v5"), "arm64": ("v9", "v8")}  # newest first
_USUAL_VARIANT = {"amd64": "v1", "arm": "v7", "arm64": "v8"}  # where none is said


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A blob or manifest; `size` is in bytes."""

    media_type: str
    digest: str
    size: int


class Platform(msgspec.Struct, frozen=True):
    """As Go calls them: `linux`, `arm64`, `v8`. Written, the usual variant goes without saying."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        is_usual = self.variant == _USUAL_VARIANT.get(self.architecture, "")
        return f"{self.os}/{self.architecture}" + ("" if is_usual else f"/{self.variant}")


class PlatformManifest(msgspec.Struct, frozen=True):
    descriptor: Descriptor
    platform: Platform | None


class ImageManifest(msgspec.Struct, frozen=True):
    """`raw` is what `digest` is the digest of."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    raw: bytes
    media_type: str
    digest: str


class Index(msgspec.Struct, frozen=True):
    """One image for several platforms."""

    entries: tuple[PlatformManifest, ...]
    raw: bytes
    media_type: str
    digest: str


class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str | None = None


class _Entry(Descriptor, frozen=True, kw_only=True):
    platform: _Platform | None = None


class _Document(msgspec.Struct):
    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: str = msgspec.field(name="mediaType", default="")
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[_Entry] | None = None


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def parse_platform(text: str) -> Platform:
    """`linux/arm64` or `linux/arm/v7`; the machine as `uname -m` calls it will do. ValueError: it is none."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts) or not text.isascii():
        raise ValueError(f"{excerpt(text)!r} is no platform, as linux/amd64 or linux/arm/v7")
    return _platform(*parts)


@contextmanager
def naming(image: object) -> Iterator[None]:
    """What is refused in the block says of which image."""
    try:
        yield
    except Final as error:
        raise Final(f"{image}: {error.message}", hint=error.hint) from error


def parse_manifest(raw: bytes, media_type: str) -> ImageManifest | Index:
    """Read what a registry answered with, whose Content-Type was `media_type`. Raises Final.

    Messages begin with `manifest`: who asked for it knows whose it is, and says so (`naming`).
    """
    if len(raw) > MOST_BYTES:
        raise Final(f"manifest: longer than {MOST_BYTES >> 20} MiB")
    if media_type.startswith(_SCHEMA_1):
        raise _schema_1()
    document = _document(raw)
    kind = _kind(document, media_type)
    if kind in INDEXES:
        return Index(_entries(document), raw, kind, digest_of(raw))
    if document.config is None or document.layers is None or document.manifests is not None:
        raise Final("manifest: makes no sense: an image has a config and layers, and no manifests")
    if document.config.media_type not in CONFIGS:
        found = excerpt(document.config.media_type[:200])
        raise Final(f"manifest: is not a container image: its config is {found}")
    config = _descriptor(document.config, MOST_CONFIG_BYTES)
    return ImageManifest(config, _layers(document.layers), raw, kind, digest_of(raw))


def choose(index: Index, platform: Platform) -> Descriptor:
    """The manifest of `platform`, of its newest variant that runs there. Raises Final.

    As github.com/containerd/platforms has it: of equally good ones the first.
    """
    images = [entry for entry in index.entries if entry.descriptor.media_type in MANIFESTS]
    variants = _VARIANTS.get(platform.architecture, ())
    runs_there = variants[variants.index(platform.variant) :] if platform.variant in variants else (platform.variant,)
    for variant in runs_there:
        for entry in images:
            if entry.platform == Platform(platform.os, platform.architecture, variant):
                return entry.descriptor
    for entry in images:
        if entry.platform is None:
            return entry.descriptor
    known = sorted({str(entry.platform) for entry in images if entry.platform and entry.platform.os != "unknown"})
    there = f"it has {', '.join(known)}" if known else "it has none that can be read"
    raise Final(f"manifest: nothing for {platform}; {excerpt(there)}")


def _document(raw: bytes) -> _Document:
    """As exactly as the next reader will be: no key is there twice, in any case, as Go's decoder takes them."""
    try:
        found = strict_json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise Final(f"manifest: no JSON: {excerpt(str(error))}") from error
    if isinstance(found, dict) and found.get("schemaVersion") == 1:
        raise _schema_1()
    try:
        document = msgspec.convert(found, _Document)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half of a surrogate pair
        raise Final(f"manifest: makes no sense: {excerpt(str(error))}") from error
    if document.schema_version != 2:
        raise Final(f"manifest: schema {document.schema_version} is not supported, only 2")
    return document


def _kind(document: _Document, media_type: str) -> str:
    """Its media type, if what is said outside and inside is one of ours and no contradiction (CVE-2021-41190)."""
    said = media_type.partition(";")[0].strip().lower()
    kind = document.media_type if said in _UNSAID else said
    if not kind:  # OCI does not oblige a manifest to say it
        kind = OCI_INDEX if document.manifests is not None else OCI_MANIFEST
    if kind not in ACCEPTED:
        raise Final(f"manifest: {excerpt(kind[:200])} is not supported")
    if document.media_type not in ("", kind):
        raise Final(f"manifest: sent as {kind}, and says that it is {excerpt(document.media_type[:200])}")
    return kind


def _layers(found: list[Descriptor]) -> tuple[Descriptor, ...]:
    if len(found) > MOST_LAYERS:
        raise Final(f"manifest: {len(found)} layers are more than {MOST_LAYERS}")
    for each in found:
        if any(word in each.media_type for word in _ELSEWHERE):
            raise Final(
                f"manifest: layer {excerpt(each.digest[:71])} is a foreign (non-distributable) layer",
                hint="such layers are parts of Windows; dom0 runs images of Linux",
            )
        if each.media_type not in LAYERS:
            raise Final(f"manifest: layers of type {excerpt(each.media_type[:200])} are not supported")
    layers = tuple(_descriptor(each, MOST_IMAGE_BYTES) for each in found)
    sizes = {layer.digest: layer.size for layer in layers}
    for layer in layers:
        if sizes[layer.digest] != layer.size:
            raise Final(f"manifest: two sizes of {layer.digest}")
    if sum(sizes.values()) > MOST_IMAGE_BYTES:
        raise Final(f"manifest: more than {MOST_IMAGE_BYTES >> 30} GiB")
    return layers


def _entries(document: _Document) -> tuple[PlatformManifest, ...]:
    if document.manifests is None or document.config is not None or document.layers is not None:
        raise Final("manifest: makes no sense: an index has manifests, and neither config nor layers")
    if len(document.manifests) > MOST_PLATFORMS:
        raise Final(f"manifest: {len(document.manifests)} platforms are more than {MOST_PLATFORMS}")
    found = []
    for each in document.manifests:
        said = each.platform
        platform = _platform(said.os, said.architecture, said.variant or "") if said else None
        found.append(PlatformManifest(_descriptor(each, MOST_BYTES), platform))
    return tuple(found)


def _platform(os: str, architecture: str, variant: str = "") -> Platform:
    os, said, variant = os.lower(), architecture.lower(), variant.lower()
    architecture, implied = _OTHER_NAMES.get(said, (said, ""))
    variant = implied or variant
    if not variant.startswith("v") and variant.isdigit():
        variant = f"v{variant}"
    return Platform(os, architecture, variant or _USUAL_VARIANT.get(architecture, ""))


def _descriptor(found: Descriptor, most: int) -> Descriptor:
    if flaw := digest_flaw(found.digest):
        raise Final(f"manifest: {flaw}")
    if not 0 <= found.size <= most:
        raise Final(f"manifest: {found.digest} cannot have {found.size} bytes")
    return Descriptor(found.media_type, found.digest, found.size)


def _schema_1() -> Final:
    return Final(
        "manifest: of schema 1, which has no digests to check it by and which Docker no longer reads either",
        hint="push the image again with a Docker of this decade",
    )
