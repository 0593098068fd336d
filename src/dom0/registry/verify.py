"""Whether somebody with a certain key has signed an image, in cosign's form for key pairs.

Source: github.com/sigstore/cosign, `specs/SIGNATURE_SPEC.md`. What is signed lies in the image's own repository, below
a tag made of its digest: small texts that name this digest, each with its signature. No certificates, no public log.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from dom0 import temporary
from dom0.errors import Final, NotThere, UsageError
from dom0.registry.manifest import MANIFESTS, Descriptor
from dom0.registry.reference import Reference, digest_flaw
from dom0.run import CommandFailed, capture

MOST_SIGNATURES = 64  # that are looked at
MOST_BYTES = 64 << 10  # of what is signed

_SIGNED = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ImageSource(Protocol):
    """A registry, or several asked like one."""

    async def manifest(self, reference: Reference) -> tuple[bytes, str, str]: ...

    def blob(self, repository: str, descriptor: Descriptor) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class PublicKey(msgspec.Struct, frozen=True):
    """In a PEM file; `name` is what messages call it."""

    name: str
    pem: bytes


class _Layer(Descriptor, frozen=True, kw_only=True):
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class _Manifest(msgspec.Struct):
    layers: list[_Layer]


class _Image(msgspec.Struct):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct):
    image: _Image
    type: str


class _Text(msgspec.Struct):
    critical: _Critical


async def require_signed(source: ImageSource, reference: Reference, digest: str, key: PublicKey) -> None:
    """Return when the manifest or index with `digest` is signed with the private half of `key`.

    Raises Final where it is not, Temporary where nobody can say so now, UsageError for a file that is no key.
    """
    try:
        await capture(["openssl", "pkey", "-pubin", "-noout"], stdin=key.pem)
    except CommandFailed as error:
        if error.code is None:
            raise
        raise UsageError(
            f"{key.name}: is no public key in a PEM file", hint="cosign generate-key-pair makes one"
        ) from error
    signatures = await _signatures(source, reference, digest)
    for layer, signature in signatures:
        async with source.blob(reference.repository, layer) as chunks:
            text = b"".join([chunk async for chunk in chunks])  # whatever its digest: the signature has to be right
        if _is_about(text, digest) and await _is_by(key, text, signature):
            return
    others = ", only by others" if signatures else ""
    raise Final(
        f"{reference}: {digest} is not signed with the key of {key.name}{others}",
        hint="whoever makes the image signs it: cosign sign --key",
    )


async def _signatures(source: ImageSource, reference: Reference, digest: str) -> list[tuple[Descriptor, bytes]]:
    """What is said to be signed, and with what. Raises Temporary and Final."""
    tag = f"{digest.replace(':', '-')}.sig"
    place = msgspec.structs.replace(reference, tag=tag, digest=None)
    try:
        raw, media_type, _ = await source.manifest(place)
    except NotThere:
        return []
    try:
        layers = msgspec.json.decode(raw, type=_Manifest).layers
    except _UNREADABLE as error:
        raise Final(f"{place}: makes no sense as signatures") from error
    if media_type.partition(";")[0] not in MANIFESTS:
        raise Final(f"{place}: makes no sense as signatures")
    found: list[tuple[Descriptor, bytes]] = []
    for layer in layers[:MOST_SIGNATURES]:
        try:
            signature = base64.b64decode(layer.annotations.get(_SIGNATURE, ""), validate=True)
        except (binascii.Error, ValueError):
            continue
        is_usable = layer.media_type == _SIGNED and 0 < layer.size <= MOST_BYTES and not digest_flaw(layer.digest)
        if signature and is_usable:
            found.append((Descriptor(layer.media_type, layer.digest, layer.size), signature))
    return found


def _is_about(text: bytes, digest: str) -> bool:
    """Only a text that is well signed says anything, so nothing here has to be doubted twice."""
    try:
        said = msgspec.json.decode(text, type=_Text).critical
    except _UNREADABLE:
        return False
    return said.type == _TYPE and said.image.digest == digest


async def _is_by(key: PublicKey, text: bytes, signature: bytes) -> bool:
    with temporary.directory("signature") as directory:
        file, pem = directory / "signature", directory / "key"
        file.write_bytes(signature)
        pem.write_bytes(key.pem)
        argv = ["openssl", "dgst", "-sha256", "-verify", str(pem), "-signature", str(file)]
        return (await capture(argv, stdin=text, check=False)).code == 0
