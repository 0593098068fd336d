"""What comes of building a project, apart from how it is built, which loads much more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from dom0.errors import ProjectError

if TYPE_CHECKING:
    from dom0.compose.model import Project
    from dom0.engine.values import Image


class Built(msgspec.Struct, frozen=True):
    """`layer`: the image's layer with the project's files, a tar, where it has at most SMALL bytes (images/project)."""

    image: Image
    changed: bool  # False: the image was there already
    project: Project | None = None  # as it lies in the image, where that is known: read by Docker Compose here
    layer: bytes = b""  # with the project
    written: Mapping[str, str] = {}  # its Compose files: by what they are called in the image, their own names

    @contextmanager
    def named_as_written(self) -> Iterator[None]:
        """In what the block refuses the project's files have their own names."""
        try:
            yield
        except ProjectError as error:
            for layer, name in self.written.items():
                error.message = error.message.replace(layer, name)
            raise
