"""Names of images, after the grammar of github.com/distribution/reference. Pure."""

from __future__ import annotations

import re

import msgspec

from dom0.errors import UsageError
from dom0.wording import excerpt

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
LONGEST_NAME = 255  # characters of registry and repository

_LEGACY_DEFAULT = "index.docker.io"
_OFFICIAL = "library/"  # what the default registry calls a repository without a slash
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ALGORITHM = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):[0-9a-fA-F]{32,}")
_ID = re.compile(r"[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """One image of a registry (`host[:port]`). Its digest, where there is one, counts and not its tag."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def wanted(self) -> str:
        """What a registry is asked for."""
        return self.digest or self.tag or DEFAULT_TAG

    def familiar(self) -> str:
        """As people write it: `redis:7` for `docker.io/library/redis:7`."""
        if self.registry != DEFAULT_REGISTRY:
            return str(self)
        short = self.repository.removeprefix(_OFFICIAL)
        return (self.repository if "/" in short else short) + self._ending()

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self._ending()}"

    def _ending(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """What `text` names; the tag is `latest` where it says neither tag nor digest. Raises UsageError."""
    name, at, digest = text.partition("@")
    registry, rest = _split(name)
    repository, colon, tag = rest.partition(":")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    if _ID.fullmatch(name):
        flaw = "that is the ID of an image, and no registry knows those"
    elif not _REGISTRY.fullmatch(registry):
        flaw = f"{registry!r} is no name of a registry"
    elif repository != repository.lower():
        flaw = "the name of a repository has small letters only"
    elif not _REPOSITORY.fullmatch(repository):
        flaw = f"{repository!r} is no name of a repository"
    elif len(registry) + 1 + len(repository) > LONGEST_NAME:
        flaw = f"it is longer than {LONGEST_NAME} characters"
    elif colon and not _TAG.fullmatch(tag):
        flaw = f"{tag!r} is no tag"
    else:
        flaw = digest_flaw(digest) if at else ""
    if flaw:
        raise UsageError(
            f"{excerpt(text[:300])}: no name of an image: {excerpt(flaw)}",
            hint="names are as in redis:7, registry.example:5000/team/app:1.2 or redis@sha256:…",
        )
    return Reference(registry, repository, tag or (None if at else DEFAULT_TAG), digest or None)


def parse_registry(text: str) -> str:
    """`host[:port]` as a Reference has it. Raises UsageError."""
    registry, rest = _split(f"{text.removeprefix('https://').rstrip('/')}/x")
    if rest != "x" or not _REGISTRY.fullmatch(registry):
        raise UsageError(
            f"{excerpt(text[:300])}: no name of a registry", hint="names are as in docker.io or registry.example:5000"
        )
    return registry


def digest_flaw(text: str) -> str:
    """Why `text` is no digest that is taken, "" where it is one."""
    if _DIGEST.fullmatch(text):
        return ""
    if (named := _ALGORITHM.fullmatch(text)) and named[1] != "sha256":
        return f"digests of {named[1][:20]} are not supported, only those of sha256"
    return f"{excerpt(text[:100])!r} is no digest, which is sha256: and 64 hexadecimal digits"


def _split(name: str) -> tuple[str, str]:
    """The registry, and the rest. A first part that could be a user's name is one."""
    first, slash, rest = name.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry, rest = (first, rest) if is_registry else (DEFAULT_REGISTRY, name)
    return (DEFAULT_REGISTRY if registry == _LEGACY_DEFAULT else registry), rest
