"""Unpacks the project of a dom0 image."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from dom0.engine.bodies import ContainerBody
from dom0.engine.protocol import Engine
from dom0.errors import Dom0Error, EngineError, UsageError
from dom0.images import contents
from dom0.names import ETC
from dom0.plan import labels


def unpack_layer(layer: bytes, into: Path) -> Path:
    """The project in a directory below `into`, from the image's layer with its files. Raises UsageError, OSError."""
    try:
        _unpack(io.BytesIO(layer), into)
    except tarfile.TarError as error:
        raise UsageError(f"layer: {error}", hint="leave it out, and the image is asked for it") from error
    return into / ETC.lstrip("/")


@contextlib.asynccontextmanager
async def unpacked(engine: Engine, image: str, into: Path) -> AsyncIterator[Path]:
    """The project of `image` in a directory below `into`, through a container that is never started.

    It is removed while the block runs. Raises EngineError, and OSError if the disk is full.
    """
    container = await engine.create_container("", ContainerBody(image=image, labels=labels.NO_PART))
    removal: asyncio.Task[None] | None = None
    try:
        with tempfile.TemporaryFile(dir=into) as tar:
            try:
                await engine.get_archive(container, ETC, tar)
            except Dom0Error as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error, EngineError):
                    raise OSError(error.__cause__.errno, error.__cause__.strerror, str(into)) from error
                raise
            removal = asyncio.create_task(engine.remove_container(container, force=True))
            await asyncio.to_thread(_unpack, tar, into)
        yield into / Path(ETC).name
    finally:
        await (removal or engine.remove_container(container, force=True))


def _unpack(tar: IO[bytes], into: Path) -> None:
    tar.seek(0)
    with tarfile.open(fileobj=tar) as archive:
        archive.extractall(into, filter=_as_it_is, numeric_owner=True)  # noqa: S202 -- it lets nothing out of `into`
        for entry in archive:
            for name in contents.ATTRIBUTES:
                value = entry.pax_headers.get(contents.PAX + name, "").encode(errors="surrogateescape")
                with contextlib.suppress(OSError):  # a caller that is not root only reads the files
                    if value:
                        os.setxattr(into / entry.name, name, value, follow_symlinks=False)


def _as_it_is(entry: tarfile.TarInfo, into: str) -> tarfile.TarInfo:
    """Nothing outside of `into`; the modes as the image has them, also what others may write."""
    return tarfile.tar_filter(entry, into).replace(mode=entry.mode, deep=False)
