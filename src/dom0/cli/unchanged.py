"""Whether the machine is already what `dom0 up` would make of a project. Asks agent and Engine, changes nothing.

Loads neither click nor msgspec, because this is most often all that `dom0 up` has to do (see fastpath.py): of the two
answers it reads the few values that it compares. What reads a project is loaded while both answer.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from dom0.cli import quick_engine
from dom0.cli.places import agent_socket, is_here
from dom0.errors import UsageError
from dom0.http import blocking
from dom0.names import IN_PLACE_FILE, state_directory

PROJECT_FILES = (
    *("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "compose.d"),
    *("Dockerfile.dom0", "Dockerfile"),
)
_IMAGES = "/images/json"


class Unchanged(NamedTuple):
    """A machine that is as `dom0 up` would leave it."""

    project: str
    generation: int

    @property
    def text(self) -> str:
        return f"{self.project}: nothing to do, generation {self.generation} is good"


class ListedImage(NamedTuple):
    id: str
    labels: Mapping[str, str]
    tags: Collection[str] = ()


Images = Mapping[str, ListedImage]
"""Every image with a name, by each of its names (`redis:latest`, and `redis` for short)."""


def find_project(directory: Path | None) -> Path | None:
    """The project to build: DIR, else this directory if it is one. Raises UsageError for a DIR that is not there."""
    if directory is not None:
        if not directory.is_dir():
            import shlex

            hint = f"make a project there: dom0 init {shlex.quote(str(directory))}"
            raise UsageError(f"{directory}: no such directory", hint=hint)
        return directory.resolve()
    here = Path.cwd()
    if any((here / name).exists() for name in PROJECT_FILES):
        return here
    dotenv = here / ".env"  # may name Compose files that are called otherwise; whoever reads it refuses what is wrong
    return here if dotenv.is_file() and b"COMPOSE_FILE" in dotenv.read_bytes() else None


def look(project: Path, tag: str) -> tuple[Unchanged | None, str | None]:
    """The machine, if all is as `dom0 up` would leave it: the same files, the same images, everything well.

    Also the ID of the dom0 image that `project` would be built into, "" if it is known that there is none yet.
    Raises EngineError, ProjectError.
    """
    unknown = None, None
    try:
        if not is_here():
            return unknown
        connection = blocking.connect(str(agent_socket()))
        blocking.send(connection, "GET", "/v1/status", timeout=quick_engine.ANSWER_WITHIN)
        asked = ask_for_images()
        from dom0.images import fingerprint, recipe  # noqa: F401 -- also what `is_current` loads: both answer meanwhile

        recipe.base_inputs()  # looks at all of the package
        with blocking.answer(connection) as answer:
            status = json.loads(answer.read()) if answer.status == blocking.OK else {}
        generation = status.get("generation") or {}
        if generation.get("outcome") != "good" or not status["converged"] or status["problems"]:
            return unknown
        machine = Unchanged(status["project"], generation["number"])
        running = status["dom0_image"]
        used = {service["image"]: service["image_id"] for service in status["services"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none runs here, or of another version
        return unknown
    images = tagged_images(asked)
    if tag not in images or not images[tag].id == generation["dom0_image"] == running:
        return unknown
    if any(images[ref].id != image_id for ref, image_id in used.items() if ref in images):
        return unknown
    return (machine, running) if is_current(project, tag, images) else (None, "")


def is_current(project: Path, tag: str, images: Images) -> bool:
    """Whether the image `tag` is the dom0 image that `project` would be built into, `images` being all that are here.

    Raises ProjectError.
    """
    from dom0.images import fingerprint  # most often `look` has loaded it

    if tag not in images:
        return False
    labels = images[tag].labels
    own = fingerprint.dockerfile_of(labels)
    if own and not (project / own).is_file():
        return False
    present = {ref: images[ref].id if ref in images else "" for ref in fingerprint.references(project, labels)}
    return fingerprint.is_current(project, labels, present, taken_over_from(project))


def taken_over_from(directory: Path) -> Collection[str]:
    """The names of the projects that live in `directory`, a real path, since they were taken over. Raises Damaged."""
    try:
        if not is_here() or not (state_directory() / IN_PLACE_FILE).exists():
            return ()
    except PermissionError:
        return ()
    from dom0.agent.in_place import find_places

    places = find_places(state_directory())
    return {name for name, place in places.items() if os.path.realpath(place) == str(directory)}


def ask_for_images() -> socket.socket:
    """To be read by `tagged_images`. Raises EngineError."""
    return quick_engine.send(_IMAGES, "GET")


def tagged_images(asked: socket.socket | None = None) -> Images:
    """Raises EngineError."""
    found = {}
    try:
        for row in json.loads(quick_engine.read(asked or ask_for_images(), _IMAGES) or b""):
            image = ListedImage(row["Id"], row.get("Labels") or {}, tuple(row.get("RepoTags") or ()))
            for tag in image.tags:
                found[tag] = found[tag.removesuffix(":latest")] = image
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise quick_engine.not_understood(error) from error
    return found
