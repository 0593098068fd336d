"""Symbolic links on the way to what a project names: where they lead on a machine. Reads links, opens nothing."""

from __future__ import annotations

import posixpath
from pathlib import Path, PurePath

import msgspec

from dom0.compose import above

_MOST = 40  # links one after the other, as the kernel has it


class Leaving(msgspec.Struct, frozen=True):
    """A link of the project that leads out of it, and what it says."""

    link: str
    target: str


def leaving(directory: Path, name: str) -> Leaving | None:
    """The first link on the way to `name` that leads out of the project in `directory`, None where none does."""
    for _ in range(_MOST):
        parts = PurePath(name).parts
        links = (PurePath(*parts[:depth]) for depth in range(1, len(parts) + 1))
        link = next((link for link in links if (directory / link).is_symlink()), None)
        if link is None or above.is_above(name):  # to what is above no link leads
            return None
        target = str((directory / link).readlink())
        name = posixpath.normpath(posixpath.join(link.parent, target, *parts[len(link.parts) :]))
        if name.startswith(("/", "../")) or name == "..":
            return Leaving(str(link), target)
    return None
