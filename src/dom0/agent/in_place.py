"""Where the files of a project live that was taken over from Docker Compose: where they lived before.

Its containers bind `./data` from there: nothing is copied, Compose finds it again, and Compose's hash stays the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dom0.agent.store import read_json, write_json

FILE = "in-place.json"  # in the state directory


class InPlace(msgspec.Struct, frozen=True, kw_only=True):
    project: str
    directory: str


def find_place(state: Path, project: str) -> Path | None:
    """What the project's relative paths mean; None if it was never taken over. Raises Damaged."""
    found = read_json(state / FILE, InPlace)
    return Path(found.directory) if found is not None and found.project == project else None


def keep_in_place(state: Path, project: str, directory: str) -> None:
    """Raises Unwritable."""
    write_json(state / FILE, InPlace(project=project, directory=directory))
