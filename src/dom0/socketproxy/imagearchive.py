"""Archives of images, as `docker save` writes them: names of the scope's own on the way out, and on the way in.

On the way in nothing is believed: each layer has to be the bytes that its image's configuration names by their digest
(the Engine takes a layer that it has already for one that is only named, whoever else's it is), or one of an image that
the scope knows; and what the Engine reads first, manifest.json, is sent last and in our own words. Without it the
archive has no end, and nothing is loaded.
Read is the format with a manifest.json, of Docker 1.10 and later, with its layers uncompressed and no links.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from dom0.socketproxy import strict, tarstream
from dom0.socketproxy.refusal import BAD_REQUEST, Refused, check_size
from dom0.socketproxy.scope import Scope, as_written

MANIFEST, REPOSITORIES = "manifest.json", "repositories"
OCI = ("index.json", "oci-layout")  # the same once more, which the Engine does not need
NAMING = (MANIFEST, REPOSITORIES, *OCI)
LARGEST_DOCUMENT = 4 << 20  # bytes
LARGEST_DOCUMENTS = 8 << 20  # bytes, of all that may be an image's configuration
LARGEST_CONFIG = 256 << 10  # bytes: its labels are in lists of images, and in events, which others read
MOST_FILES = 10_000
LACKING = "lacking.tar"  # where the Engine does not look: it has that layer


class Image(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """An item of manifest.json; other keys are left out."""

    config: str
    repo_tags: list[str]
    layers: tuple[str, ...]


Chain = tuple[str, ...]
"""The digests of layers, from the lowest: what one of them is depends on all below it."""


class _RootFs(msgspec.Struct, frozen=True, kw_only=True):
    diff_ids: tuple[str, ...]


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    rootfs: _RootFs


async def shown(scope: Scope, chunks: tarstream.Pieces) -> tarstream.Pieces:
    """What the Engine saves, with the scope's names and labels. Raises Refused."""
    writer = tarstream.TarWriter()
    documents: dict[str, bytes] = {}
    entry, held = tarstream.TarMember(name=""), bytearray()
    async for event in tarstream.read(chunks):
        if isinstance(event, tarstream.TarMember):
            yield _with_content(writer, entry, _short_labels(held, scope))
            entry, held = event, bytearray()
            if event.name in NAMING:
                _check_size(event)
                documents[event.name] = b""
            elif event.name and not _is_held(event):
                yield writer.begin(event)
        elif entry.name in NAMING:
            documents[entry.name] += event
        elif _is_held(entry):
            held += event
        else:
            yield event
    yield _with_content(writer, entry, _short_labels(held, scope))
    for name in (MANIFEST, REPOSITORIES):
        if documents.get(name):
            content = msgspec.json.encode(_short(strict.parse(documents[name]), scope))
            yield _with_content(writer, tarstream.TarMember(name=name, size=len(content)), content)
    yield writer.end()


def _is_held(entry: tarstream.TarMember) -> bool:
    """Whether it may be an image's configuration: then it is looked at as a whole."""
    return entry.type == tarstream.FILE and entry.name not in NAMING and 0 < entry.size <= LARGEST_DOCUMENT


def _with_content(writer: tarstream.TarWriter, entry: tarstream.TarMember, content: bytes) -> bytes:
    return writer.begin(msgspec.structs.replace(entry, size=len(content))) + content if content else b""


def _short_labels(content: bytearray, scope: Scope) -> bytes:
    """Of a configuration that has the scope's labels; all else as it is."""
    if not content.startswith(b"{") or f'"{scope.label_prefix}'.encode() not in content:
        return bytes(content)
    try:
        image = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(content)
    for config in (image.get("config"), image.get("container_config")):
        if isinstance(config, dict) and config.get("Labels"):
            config["Labels"] = as_written(config["Labels"], scope.label_prefix)
    return msgspec.json.encode(image)


def _short(value: Any, scope: Scope) -> Any:
    """Names are keys too: `{"dom0.invalid/guest/app": {"dev": …}}`."""
    match value:
        case dict():
            return {scope.short_image(key): _short(item, scope) for key, item in value.items()}
        case list():
            return [_short(item, scope) for item in value]
        case str():
            return scope.short_image(value)
    return value


class ArchiveLoad:
    """An archive on its way to the Engine: `pass_on` its entries, and `end` with the images that are in it."""

    def __init__(self) -> None:
        self._writer = tarstream.TarWriter()
        self._digests: dict[str, str] = {}  # of files, by path
        self._documents: dict[str, bytes] = {}  # files that may be JSON, by path
        self._room = LARGEST_DOCUMENTS
        self.lacking: set[Chain] = set()  # of its images, up to the last layer that is only named

    async def pass_on(self, chunks: tarstream.Pieces) -> tarstream.Pieces:
        """All but what names the images. Raises Refused."""
        entry = tarstream.TarMember(name="")
        digest, document = hashlib.sha256(), bytearray()
        async for event in tarstream.read(chunks):
            if isinstance(event, tarstream.TarMember):
                self._finish(entry, digest.hexdigest(), document)
                entry, digest, document = event, hashlib.sha256(), bytearray()
                self._check(entry)
                if entry.name and entry.name not in NAMING:
                    yield self._writer.begin(entry)
                continue
            if entry.name not in NAMING:
                yield event  # first, so that the Engine reads it while it is hashed
            digest.update(event)
            if entry.size <= LARGEST_DOCUMENT:
                document += event
        self._finish(entry, digest.hexdigest(), document)

    def _check(self, entry: tarstream.TarMember) -> None:
        if entry.type not in (tarstream.FILE, tarstream.DIRECTORY):
            raise _unclear(f"{entry.name}: is a link")
        if entry.type == tarstream.FILE and (entry.name in self._digests or len(self._digests) >= MOST_FILES):
            raise _unclear(f"{entry.name}: is there twice, or one file too many")
        if entry.name in NAMING:
            _check_size(entry)

    def _finish(self, entry: tarstream.TarMember, digest: str, document: bytearray) -> None:
        if entry.type != tarstream.FILE or not entry.name:
            return
        self._digests[entry.name] = f"sha256:{digest}"
        if document.startswith((b"{", b"[")):
            self._room -= len(document)
            if self._room < 0:
                raise _unclear("more small files than images have")
            self._documents[entry.name] = bytes(document)

    def images(self) -> list[Image]:
        """Those that are in it, checked, but for what is `lacking`. Raises Refused."""
        if MANIFEST not in self._documents:
            raise _unclear(f"has no {MANIFEST}")
        try:
            found = msgspec.convert(strict.parse(self._documents[MANIFEST]), list[Image])
        except msgspec.ValidationError as error:
            raise _unclear(f"{MANIFEST}: {error}; an image without a name would be nobody's") from error
        chains = {name: self._chain(name) for name in dict.fromkeys(image.config for image in found)}  # each once
        return [msgspec.structs.replace(image, layers=self._layers(image, chains[image.config])) for image in found]

    def _chain(self, name: str) -> Chain:
        """The layers that the configuration `name` wants. Raises Refused."""
        document = strict.parse(self._documents.get(name, b""))
        check_size(f"the archive of images: {name}", document, LARGEST_CONFIG, "build it with fewer labels and steps")
        try:
            return msgspec.convert(document, _Config).rootfs.diff_ids
        except msgspec.ValidationError as error:
            raise _unclear(f"{name}: {error}") from error

    def _layers(self, image: Image, wanted: Chain) -> tuple[str, ...]:
        """Where each is in the archive; one that is only named has a name of ours. Raises Refused."""
        if not image.repo_tags:
            raise _unclear(f"{image.config}: an image without a name would be nobody's")
        found = [self._digests.get(layer, "") for layer in image.layers]
        if len(found) != len(wanted) or any(one not in ("", other) for one, other in zip(found, wanted, strict=True)):
            raise _unclear(f"{image.config}: its layers are not those that are there, or are compressed")
        lacking = [number for number, digest in enumerate(found, 1) if not digest]
        self.lacking |= {wanted[:number] for number in lacking[-1:]}
        return tuple(layer if digest else LACKING for layer, digest in zip(image.layers, found, strict=True))

    def end(self, images: list[Image]) -> bytes:
        content = msgspec.json.encode(images)
        return self._writer.begin(tarstream.TarMember(name=MANIFEST, size=len(content))) + content + self._writer.end()


def _check_size(entry: tarstream.TarMember) -> None:
    if entry.size > LARGEST_DOCUMENT:
        raise _unclear(f"{entry.name}: is too long")


def _unclear(what: str) -> Refused:
    return Refused(BAD_REQUEST, f"the archive of images: {what}")
