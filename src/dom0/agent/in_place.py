"""Where the files of projects live that were taken over from Docker Compose: where they lived before.

Their containers bind `./data` from there: nothing is copied, Compose finds it again, and Compose's hash stays the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from dom0.agent.store import read_json, write_json
from dom0.compose import above
from dom0.errors import ProjectError
from dom0.names import IN_PLACE_FILE


class InPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The project that was taken over last."""

    project: str
    directory: str
    others: dict[str, str] = {}  # project -> directory


def find_places(state: Path) -> dict[str, Path]:
    """Project -> what its relative paths mean, of all that were ever taken over. Raises Damaged."""
    found = read_json(state / IN_PLACE_FILE, InPlace)
    places = {**found.others, found.project: found.directory} if found else {}
    return {project: Path(directory) for project, directory in places.items()}


def require_nothing_above(etc: Path, place: Path) -> None:
    """Raises ProjectError if the project `etc` names with `../` what is above `place`: we place nothing there."""
    if os.path.lexists(etc / above.PARENT):
        raise ProjectError(
            f"{place}: the project names what is above this directory with `../`, where dom0 places no files",
            hint="bind it by an absolute path; or end it: docker compose down, or dom0 down, and bring it up without "
            "--adopt: the machine then has its own directories, empty or as they are in the project",
        )


def keep_in_place(state: Path, project: str, directory: str) -> None:
    """Raises Unwritable, Damaged."""
    others = {name: str(place) for name, place in find_places(state).items() if name != project}
    write_json(state / IN_PLACE_FILE, InPlace(project=project, directory=directory, others=others))
