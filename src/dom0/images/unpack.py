"""Takes the project out of a dom0 image: the one use of an image's files that needs no build."""

from __future__ import annotations

import asyncio
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from dom0.engine.protocol import Engine
from dom0.plan import labels

ETC = "/etc/dom0"  # where an image keeps its project


async def unpack_project(engine: Engine, image: str, into: Path) -> Path:
    """The project of `image` in a directory below `into`, by way of a container that is never started.

    The empty labels hide the image's own: nobody takes that container for a part of the machine. Raises EngineError.
    """
    body = {"Image": image, "Labels": {labels.PROJECT: "", labels.ROLE: ""}}
    with tempfile.TemporaryFile(dir=into) as tar:
        container = await engine.create_container("", body)
        try:
            await engine.get_archive(container, ETC, tar)
        finally:
            await engine.remove_container(container, force=True)
        await asyncio.to_thread(_unpack, tar, into)
    return into / Path(ETC).name


def _unpack(tar: IO[bytes], into: Path) -> None:
    tar.seek(0)
    with tarfile.open(fileobj=tar) as archive:
        archive.extractall(into, filter="tar")  # the image's own modes; nothing outside of `into`
