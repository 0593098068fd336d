"""What the images of the chain are made from, and the digests by which they are built again.

    dom0-rootfs  <- images/dom0-rootfs, the host's package sources
    dom0-base    <- dom0-rootfs, images/dom0-base, the package dom0 itself
    dom0:latest  <- dom0-base (or what the project's Dockerfile says), the project: see project.py

    dom0-ambassador  <- images/dom0-ambassador, the host's package sources, the part of dom0 that ambassadors run

An image carries the digest of its inputs as label `dom0.inputs`. Reads files, never the Engine or the network.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dom0.images.contents import TreeEntry, digest, entries
from dom0.images.digest_cache import remembered
from dom0.names import AMBASSADOR_IMAGE, BASE_IMAGE, ROOTFS_IMAGE, cache_directory
from dom0.package_data import PACKAGE, find

EPOCH = 1767225600  # 2026-01-01: the time of files and images, so that builds are reproducible
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
# Of the package dom0: the package `ambassador` and all that it imports.
_OF_AMBASSADORS = frozenset(
    (
        "__init__.py",
        "ambassador",
        "durable.py",
        "durations.py",
        "errors.py",
        "forward",
        "health.py",
        "log.py",
        "printable.py",
        "run.py",
        "terminal.py",
        "times.py",
        "unix_socket.py",
        "wording.py",
    )
)
BAKED = PACKAGE / "base-inputs"  # inside dom0-base: the digest it was made from


def data(image: str) -> Path:
    """The directory with the recipe of `image`."""
    return find(f"images/{image}", f"the recipe of {image} is")


def examples() -> Path:
    """The projects that `dom0 init` copies; an image has them too."""
    return find("examples", "the examples are")


def agent_files() -> Iterator[TreeEntry]:
    """The package dom0 as it goes into the image: without the test kit, recipes and byte code."""
    return entries(PACKAGE, lambda name: name.split("/")[0] in ("testing", "data") or _is_byte_code(name))


def ambassador_files() -> Iterator[TreeEntry]:
    """The part of the package dom0 that goes into dom0-ambassador; the import contract ensures that it is enough."""
    return entries(PACKAGE, lambda name: name.split("/")[0] not in _OF_AMBASSADORS or _is_byte_code(name))


def rootfs_inputs() -> str:
    """Digest of what dom0-rootfs is made from."""
    told = "\n".join(_source_texts())
    code = (PACKAGE / "images" / "rootfs.py").read_text()
    return digest(entries(data(ROOTFS_IMAGE)), text=f"{EPOCH} {os.uname().machine}\n{told}\n{code}")


@functools.cache  # a command asks half a dozen times, and each answer looks at all of the package
def base_inputs() -> str:
    """Digest of what dom0-base is made from; inside a dom0-base image the one that image was made from."""
    if BAKED.exists():
        return BAKED.read_text().strip()
    files = [*agent_files(), *entries(data(ROOTFS_IMAGE)), *entries(examples())]
    for image in (BASE_IMAGE, AMBASSADOR_IMAGE):
        files += entries(data(image), _is_byte_code)
    told = "\n".join((os.uname().machine, *_source_texts()))
    return remembered(cache_directory() / "base-inputs", files, _read_base_inputs, text=told, now=time.time_ns())


def _read_base_inputs() -> str:
    recipe = digest(entries(data(BASE_IMAGE), _is_byte_code), text=digest(entries(examples())))
    return digest(agent_files(), text=f"{rootfs_inputs()} {recipe} {ambassador_inputs()}")


def ambassador_inputs() -> str:
    """Digest of what dom0-ambassador is made from; also a part of dom0-base's digest, which therefore covers both."""
    recipe = digest(entries(data(AMBASSADOR_IMAGE), _is_byte_code))
    code = "".join((PACKAGE / "images" / name).read_text() for name in ("ambassador.py", "rootfs.py"))
    told = "\n".join(_source_texts())
    return digest(ambassador_files(), text=f"{EPOCH} {os.uname().machine} {recipe}\n{told}\n{code}")


def _source_texts() -> Iterator[str]:
    for path in SOURCES:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.suffix in (".list", ".sources") and file.is_file():
                yield file.read_text(errors="replace")


def _is_byte_code(name: str) -> bool:
    return name.split("/")[-1] == "__pycache__"
