"""Symbolic links on the way to what a project names: where they lead on a machine. Reads links, opens nothing."""

from __future__ import annotations

import errno
from pathlib import Path, PurePath

import msgspec

from dom0.compose import above

_MOST = 40  # links one after the other, as the kernel has it


class OutwardLink(msgspec.Struct, frozen=True):
    """A link of the project that leads out of it, and what it says."""

    link: str
    target: str


def leaving(directory: Path, name: str) -> OutwardLink | None:
    """The first link on the way to `name` that leads out of the project in `directory`, None where none does."""
    way, rest, followed = PurePath(), PurePath(name).parts, list[OutwardLink]()
    while rest and not above.is_above(str(way / rest[0])):  # to what is above no link leads
        part, rest = rest[0], rest[1:]
        if part == "..":
            if not way.parts:
                return followed[-1] if followed else None
            way = way.parent
        elif (directory / way / part).is_symlink():
            target = (directory / way / part).readlink()
            followed.append(OutwardLink(str(way / part), str(target)))
            if target.is_absolute():
                return followed[-1]
            if len(followed) > _MOST:
                return None
            rest = (*target.parts, *rest)
        else:
            way /= part
    return None


def is_circle(path: Path) -> bool:
    """Whether links on the way to `path` lead back to themselves."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False
