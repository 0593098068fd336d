"""Where the files of projects live that were taken over from Docker Compose: where they lived before.

Their containers bind `./data` from there: nothing is copied, Compose finds it again, and Compose's hash stays the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dom0.agent.store import read_json, write_json

FILE = "in-place.json"  # in the state directory


class InPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The project that was taken over last."""

    project: str
    directory: str
    others: dict[str, str] = {}  # project -> directory


def find_places(state: Path) -> dict[str, Path]:
    """Project -> what its relative paths mean, of all that were ever taken over. Raises Damaged."""
    found = read_json(state / FILE, InPlace)
    places = {**found.others, found.project: found.directory} if found else {}
    return {project: Path(directory) for project, directory in places.items()}


def keep_in_place(state: Path, project: str, directory: str) -> None:
    """Raises Unwritable, Damaged."""
    others = {name: str(place) for name, place in find_places(state).items() if name != project}
    write_json(state / FILE, InPlace(project=project, directory=directory, others=others))
