"""What comes of building a project, apart from how it is built, which loads much more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from dom0.compose.model import Project
    from dom0.engine.values import Image


class Built(msgspec.Struct, frozen=True):
    """`layer`: the image's layer with the project's files, a tar, where it has at most SMALL bytes (images/project)."""

    image: Image
    changed: bool  # False: the image was there already
    project: Project | None = None  # as the agent of the image reads it, where that is known
    layer: bytes = b""  # with the project
