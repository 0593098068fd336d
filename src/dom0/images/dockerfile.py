"""Which Dockerfile of a project makes the machine's image, if one does, and its base images.

`Dockerfile.dom0` is the machine's. So is a plain `Dockerfile` that is based on a dom0 image, unless a service is built
from it: most projects have the Dockerfile of a service there. Reads files, asks no Engine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from dom0.errors import ProjectError

MACHINES = "Dockerfile.dom0"
PLAIN = "Dockerfile"
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE | re.MULTILINE)


def images_below(file: Path) -> tuple[str, ...]:
    """The base images of a Dockerfile's stages, without those that an argument names. Raises ProjectError."""
    found = _stages(file)
    own = {"scratch", *(name for _, name in found)}
    return tuple(dict.fromkeys(image for image, _ in found if image not in own and "$" not in image))


def image_of_last_stage(file: Path) -> str:
    """The base image of the last stage, "" for none or one that an argument names. Raises ProjectError."""
    stages: dict[str, str] = {}
    image = ""
    for base, name in _stages(file):
        image = stages.get(base.lower(), base)
        stages[name.lower()] = image
    return "" if "$" in image or image == "scratch" else image


def _stages(file: Path) -> list[tuple[str, str]]:
    try:
        return _FROM.findall(file.read_text(errors="replace"))
    except OSError as error:
        raise ProjectError(f"{file}: {error.strerror}") from error


async def builds_service(directory: Path) -> bool:
    """Whether a service of the project is built from its plain Dockerfile, or may be.

    A project that cannot be read has no such service: it may only be valid together with that of its base image.
    """
    from dom0.compose.load import read_documents  # only the first build of a project needs them
    from dom0.compose.references import plain, services

    try:
        documents = await read_documents(directory)
    except ProjectError:
        return False
    defined = (service for document in documents for _, service in services(document) if isinstance(service, dict))
    return any(_may_be_plain(directory, plain(service.get("build"))) for service in defined)


def _may_be_plain(directory: Path, build: Any) -> bool:
    if isinstance(build, str):
        build = {"context": build}
    if not isinstance(build, dict) or "dockerfile_inline" in build:
        return False
    context, file = build.get("context", "."), build.get("dockerfile", PLAIN)
    if not (isinstance(context, str) and isinstance(file, str)):
        return False
    return "$" in context + file or os.path.normpath(directory / context / file) == str(directory / PLAIN)
