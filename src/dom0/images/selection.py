"""Which files of a project its image holds: those that .dockerignore lets in, and those that the machine needs anyway.

A `.dockerignore` is most often a service's, and was written for its build: `.env` and env files are in it. What the
project is read from, configs, secrets and files that services bind are taken whatever it says. Of a directory that
services bind it may leave out the files: then the machine begins with an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from dom0.compose.model import Project
from dom0.images.ignore import Ignore


def kept(project: Project, directory: Path, ignore: Ignore) -> tuple[str, ...]:
    """What the machine needs of all that `ignore` leaves out, and the directories above it; below `directory`."""
    found = {part for name in _needed(project) for part in _on_the_way(directory, name)}
    return tuple(sorted(name for name in found if ignore(name)))


def _needed(project: Project) -> Iterator[str]:
    """Relative paths; some of them may not be there."""
    yield from project.opened
    for path in _mounted(project):
        target = PurePath(path)
        if target != PurePath(project.working_dir) and target.is_relative_to(project.working_dir):
            yield str(target.relative_to(project.working_dir))
    yield from (os.path.normpath(path) for path in project.contents)


def _mounted(project: Project) -> Iterator[str]:
    for item in (*project.configs.values(), *project.secrets.values()):
        if item.file:
            yield item.file
    for service in project.services.values():
        yield from (volume.source for volume in service.volumes if volume.type == "bind")


def _on_the_way(directory: Path, name: str) -> Iterator[str]:
    """`name`, the directories above it, and for each of these that is a link also what that leads to."""
    for depth in range(1, len(PurePath(name).parts) + 1):
        part = PurePath(*PurePath(name).parts[:depth])
        path = directory / part
        if not os.path.lexists(path):
            return
        yield str(part)
        if path.is_symlink():
            leads_to = PurePath(os.path.relpath(os.path.realpath(path), directory))
            if ".." not in leads_to.parts:
                yield from _on_the_way(directory, str(leads_to / PurePath(name).relative_to(part)))
            return
