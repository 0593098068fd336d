"""What `.dockerignore` leaves out of a project although its services bind the place: an image says it in a file.

By that the machine knows that a file which no longer comes is not gone from the project, and leaves it to the services.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePath

import msgspec

from dom0.compose import above
from dom0.compose.model import Project
from dom0.errors import ProjectError
from dom0.images import fingerprint
from dom0.images.ignore import Ignore

FILE = ".dom0-left-out"  # in an image and a generation; it is placed nowhere


class _Rule(msgspec.Struct, frozen=True):
    """Of what lies in `bind`, named as in the image, `lines` of a .dockerignore leave out, from `top` on."""

    bind: str
    top: str
    lines: tuple[str, ...]


def encode(project: Project, directory: Path) -> bytes:
    """The content of the file, none where nothing is left out of what services bind. Raises ProjectError."""
    root = PurePath(project.working_dir)
    sources = {volume.source for service in project.services.values() for volume in service.volumes}
    sources |= {volume.driver_opts.get("device", "") for volume in project.volumes.values()}
    bound = {str(path.relative_to(root)) for path in map(PurePath, sources) if path.is_relative_to(root)}
    top = os.path.realpath(directory)
    real = {os.path.relpath(os.path.realpath(above.find(directory, name)), top) for name in bound}  # where links lead
    binds = sorted(bound | {name for name in real if ".." not in PurePath(name).parts})
    ignore = fingerprint.read_ignore(directory)
    rules = [_Rule(bind, ".", (ignore if bind == "." else ignore.named).lines) for bind in binds]
    around = [bind for bind in binds if bind != "." and above.is_around(bind)]
    rules += [_Rule(bind, bind, fingerprint.read_ignore(above.find(directory, bind)).lines) for bind in around]
    told = [rule for rule in rules if rule.lines != fingerprint.NEVER]
    return msgspec.json.encode(told) if told else b""


def read(files: Path) -> Callable[[str], bool]:
    """Whether a name is left out of what services bind in the project whose files these are."""
    try:
        path = files / FILE
        rules = msgspec.json.decode(b"" if path.is_symlink() else path.read_bytes(), type=list[_Rule])
        found = [(rule, Ignore("\n".join(rule.lines), where=FILE)) for rule in rules]
    except (OSError, msgspec.MsgspecError, ProjectError):  # none, or of an image that somebody made in another way
        return lambda name: False

    def is_left_out(name: str) -> bool:
        path = PurePath(name)
        return any(
            path.is_relative_to(rule.bind) and path.is_relative_to(rule.top) and ignore(str(path.relative_to(rule.top)))
            for rule, ignore in found
        )

    return is_left_out
