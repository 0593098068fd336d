"""The manifest of a built base OS: every package with its version and size, modules, digests of the files."""

from __future__ import annotations

import msgspec


class PackageEntry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    size: int  # bytes of the .deb file


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size: int  # bytes
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: str  # as /etc/dom0-os says it
    architecture: str  # Debian's word
    flavour: str
    kernel: str
    packages: tuple[PackageEntry, ...]
    modules: tuple[str, ...]  # paths below the kernel's directory
    artifacts: tuple[Artifact, ...]
    rescue: int = 0  # bytes of the rescue image in it


FILE = "manifest.json"


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(data: bytes) -> Manifest:
    """Raises msgspec.ValidationError."""
    return msgspec.json.decode(data, type=Manifest)
