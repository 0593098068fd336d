"""The project as the latest build on a machine has read it, kept for the next `dom0 up` of the image that it made.

An image never changes, and what it leaves out is part of its inputs: reading the files out of it and asking Compose
again would give the same. Kept only where dom0 runs as root, because it contains the values of the project's variables.
"""

from __future__ import annotations

import contextlib

import msgspec

from dom0.agent.store import Damaged, read_json, write_json
from dom0.cli.places import is_here
from dom0.compose.model import Project
from dom0.errors import Dom0Error
from dom0.images.built import Built
from dom0.names import state_directory

FILE = "reading.json"  # in the state directory


class KeptReading(msgspec.Struct, frozen=True, kw_only=True):
    image: str  # ID
    project: Project  # as it lies there: read by Docker Compose here


def keep(built: Built) -> None:
    """If its project was read, and this is its machine. Who finds none reads again."""
    with contextlib.suppress(OSError, Dom0Error):
        if built.project is not None and is_here() and (state_directory() / "generations").is_dir():
            kept = KeptReading(image=built.image.id, project=built.project)
            write_json(state_directory() / FILE, kept, durable=False)


def find(image_id: str) -> Project | None:
    try:
        kept = read_json(state_directory() / FILE, KeptReading) if is_here() else None
    except (Damaged, OSError):
        return None
    return kept.project if kept and kept.image == image_id else None
