"""What `.dockerignore` leaves out of a project although its services bind the place: an image says it in a file.

By that the machine knows that a file which no longer comes is not gone from the project, and leaves it to the services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

import msgspec

from dom0.compose import above
from dom0.compose.model import Project
from dom0.errors import ProjectError
from dom0.images import fingerprint
from dom0.images.ignore import Ignore

FILE = ".dom0-left-out"  # in an image and a generation; it is placed nowhere


class _LeftOut(msgspec.Struct, frozen=True):
    binds: tuple[str, ...]  # what services bind, by its name in the image
    ignored: dict[str, tuple[str, ...]]  # a directory -> the lines of its .dockerignore


def encode(project: Project, directory: Path, kept: Iterable[str]) -> bytes:
    """The content of the file, none where nothing is left out of what services bind. Raises ProjectError."""
    root = PurePath(project.working_dir)
    sources = {volume.source for service in project.services.values() for volume in service.volumes}
    sources |= {volume.driver_opts.get("device", "") for volume in project.volumes.values()}
    paths = [path for path in map(PurePath, sources) if path.is_relative_to(root)]
    binds = sorted(str(path.relative_to(root)) for path in paths)
    directories = [".", *filter(above.is_around, kept)]
    lines = {name: fingerprint.read_ignore(above.find(directory, name)).lines for name in directories}
    ignored = {name: found for name, found in lines.items() if found != fingerprint.NEVER}
    return msgspec.json.encode(_LeftOut(tuple(binds), ignored)) if binds and ignored else b""


def read(files: Path) -> Callable[[str], bool]:
    """Whether a name is left out of what services bind in the project whose files these are."""
    try:
        found = msgspec.json.decode((files / FILE).read_bytes(), type=_LeftOut)
        rules = {name: Ignore("\n".join(lines), where=FILE) for name, lines in found.ignored.items()}
    except (OSError, msgspec.MsgspecError, ProjectError):  # none, or of an image that somebody made in another way
        return lambda name: False

    def is_left_out(name: str) -> bool:
        path = PurePath(name)
        return any(path.is_relative_to(bind) for bind in found.binds) and any(
            path.is_relative_to(top) and ignores(str(path.relative_to(top))) for top, ignores in rules.items()
        )

    return is_left_out
