"""Debian's package archive as this host reaches it: its package sources, and downloads from them.

apt itself lists the sources (`apt-get indextargets`), in whichever format they are written. Only Debian's are taken:
packages of a local directory or of a vendor do not belong into an image of ours. Downloads go to directories of our
own, and the host's apt is never changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from dom0 import temporary
from dom0.errors import Dom0Error
from dom0.run import capture

DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-"  # in every image, from the package debian-archive-keyring
_FIELDS = ("ORIGIN", "REPO_URI", "RELEASE", "COMPONENT", "SIGNED_BY")
_FORMAT = "\t".join(f"$({field})" for field in _FIELDS)
_REMOTE = ("http", "https")


class Archive(msgspec.Struct, frozen=True):
    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: str = ""  # path; "": the keys that apt trusts anyway


def environment() -> dict[str, str]:
    """For apt and what runs it: messages in English, and a PATH with /usr/sbin for users too."""
    return os.environ | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


async def debian_archives() -> tuple[Archive, ...]:
    """Debian's archives among the host's package sources. Raises Dom0Error if there is none."""
    index_targets = ("indextargets", "--format", _FORMAT, "Created-By: Packages")
    listed = await capture(["apt-get", *index_targets], env=environment())
    if not listed.stdout.strip():  # apt lists nothing before the first update
        with temporary.directory("apt") as scratch:
            options = own_state(scratch)
            await capture(["apt-get", *options, "update"], env=environment(), check=False)
            listed = await capture(["apt-get", *options, *index_targets], env=environment())
    return select(listed.stdout)


def select(listed: str) -> tuple[Archive, ...]:
    """Debian's archives in what `apt-get indextargets` printed, in its order. Raises Dom0Error if there is none."""
    components: dict[tuple[str, str, str], dict[str, None]] = {}
    for line in listed.splitlines():
        # A field without a value is printed as its own name.
        values = [value if value != f"$({name})" else "" for name, value in zip(_FIELDS, line.split("\t"), strict=True)]
        origin, uri, suite, component, keyring = values
        parts = urlsplit(uri)
        if origin == "Debian" and parts.scheme in _REMOTE and component:
            if parts.username or parts.password:
                raise Dom0Error(
                    f"package sources: the address on {parts.hostname} holds a password, every image would show it",
                    hint="use an archive that needs none",
                )
            key = (uri, suite, keyring if keyring.startswith("/") else "")
            components.setdefault(key, {})[component] = None
    if not components:
        raise Dom0Error(
            "package sources: none is Debian's archive, so no image can be built here",
            hint="add one below /etc/apt/sources.list.d and run apt-get update,\n"
            "or bring the images from another host: docker save, docker load",
        )
    return tuple(Archive(uri, suite, tuple(names), keyring) for (uri, suite, keyring), names in components.items())


def version_in(names: Iterable[str], pattern: str) -> str:
    """The group of `pattern` in the only one of `names`, of packages or of their files, that it matches."""
    found = {match[1] for name in names if (match := re.search(pattern, name))}
    assert len(found) == 1, f"{pattern}: {sorted(found)}"
    return found.pop()


def sources_text(archives: Iterable[Archive]) -> str:
    """The content of a `.sources` file."""
    stanzas = []
    for archive in archives:
        lines = ["Types: deb", f"URIs: {archive.uri}", f"Suites: {archive.suite}"]
        lines += [f"Components: {' '.join(archive.components)}"]
        lines += [f"Signed-By: {archive.keyring}"] if archive.keyring else []
        stanzas.append("".join(f"{line}\n" for line in lines))
    return "\n".join(stanzas)


async def proxies() -> dict[str, str]:
    """The host's apt proxies as environment variables: apt in a new root does not read the host's settings."""
    found = {}
    for scheme in _REMOTE:
        name = f"Acquire::{scheme}::Proxy"
        told = (await capture(["apt-config", "dump", "--format", "%v", name], env=environment())).stdout.strip()
        if told and told != "DIRECT":
            found[f"{scheme}_proxy"] = told
    return found


def own_state(directory: Path) -> list[str]:
    """Options that keep apt's lists and downloads in `directory`."""
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::lists": directory / "lists",
        "Dir::Cache::archives": directory / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",  # the user _apt could not read our directory
        "Debug::NoLocking": "1",
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


async def download(
    packages: Sequence[str], archives: Sequence[Archive], status: Path, into: Path, *, architecture: str = ""
) -> None:
    """Download `packages` and all they need in a root whose dpkg status file is `status`, to `into`/*.deb.

    `architecture`: another one than the host's, in Debian's word.
    """
    with temporary.directory("apt") as scratch:
        sources = scratch / "debian.sources"
        sources.write_text(sources_text(archives))
        preferences = "/dev/null"  # an image does not depend on what the host pins
        options = [
            *own_state(scratch),
            *("-o", f"Dir::State::status={status}"),
            *("-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=/dev/null"),
            *("-o", f"Dir::Etc::preferences={preferences}", "-o", f"Dir::Etc::preferencesparts={preferences}"),
        ]
        if architecture:
            options += ["-o", f"APT::Architecture={architecture}", "-o", f"APT::Architectures={architecture}"]
        await capture(["apt-get", *options, "update"], env=environment())
        install = ["install", "--yes", "--no-install-recommends", "--download-only", *packages]
        await capture(["apt-get", *options, *install], env=environment())
        for package in sorted((scratch / "archives").glob("*.deb")):
            package.chmod(0o644)
            (into / package.name).write_bytes(package.read_bytes())
