"""Files above a project's directory that it names with `../`: how they are called, and which may be taken.

In an image, and on a machine, nothing is above the project: `../data` is `.dom0-parent/data` there. So the project's
own paths stay what they are, whatever else it names. What is taken lies in the same git work tree, and was named: a
file elsewhere is the person's own, and a directory that holds the project itself would be on the machine twice.
Light to import: who only asks for a digest needs it too.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath

PARENT = ".dom0-parent"


def is_above(name: str) -> bool:
    """Whether an image calls something so that is above the project."""
    return PurePath(name).parts[:1] == (PARENT,)


def inner(name: str) -> str:
    """What an image calls it: `../../data` → `.dom0-parent/.dom0-parent/data`; a name without `..` as it is."""
    return str(PurePath(*(PARENT if part == ".." else part for part in PurePath(name).parts)))


def top(name: str) -> str:
    """`a/b/c` → `a`, and of what is above, `.dom0-parent/a/b` → `.dom0-parent/a`."""
    parts = PurePath(name).parts
    return str(PurePath(*parts[: _levels(parts) + 1]))


def find(directory: Path, name: str) -> Path:
    """Where it is that an image calls `name`: below `directory` where that is the content of an image, else above."""
    if not is_above(name) or os.path.lexists(directory / PARENT):
        return directory / name
    parts = PurePath(name).parts
    levels = _levels(parts)
    return Path(os.path.normpath(directory.joinpath(*[".."] * levels, *parts[levels:])))


def _levels(parts: tuple[str, ...]) -> int:
    """How far up they lead."""
    return next((number for number, part in enumerate(parts) if part != PARENT), len(parts))


def may_take(directory: Path, name: str) -> bool:
    """Whether the image of the project in `directory` may hold `name`, written with `..`; it need not be there."""
    if all(part == ".." for part in PurePath(name).parts):
        return False
    if os.path.lexists(directory / PARENT):
        return True
    path, tree = find(directory, inner(name)), _work_tree(directory)
    is_inside = tree is not None and path != tree and path.is_relative_to(tree)
    return is_inside and not directory.is_relative_to(path) and Path(os.path.realpath(path)) == path


def _work_tree(directory: Path) -> Path | None:
    """The git work tree that a directory is in; none that is a person's whole home, or the whole machine."""
    tree = next((path for path in (directory, *directory.parents) if os.path.lexists(path / ".git")), None)
    return None if tree in (Path("/"), Path("~").expanduser()) else tree
