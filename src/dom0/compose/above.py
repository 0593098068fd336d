"""Files above a project's directory that it names with `../`: their names in an image, and which may be taken.

In an image, and on a machine, nothing is above the project: `../data` is `.dom0-parent/data` there, so that the
project's own paths never change. Only files that the project names and that are in the same git work tree are taken;
others are not its own. A path where nothing is yet may be bound from anywhere. `..` itself is `.dom0-parent`, without
the project, so that no file is on a machine twice (see around.py for what containers see of it).
Imports little: `dom0 up` needs it for a digest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

PARENT = ".dom0-parent"
_LONGEST = 4096  # characters of a path
WAY = "compose.d/.way"  # in an image: a link that says `names_down` of the highest directory around that is bound


def is_above(name: str) -> bool:
    """Whether `name` in an image is something above the project."""
    return PurePath(name).parts[:1] == (PARENT,)


def inner(name: str) -> str:
    """The name in an image: `../../data` → `.dom0-parent/.dom0-parent/data`; a name without `..` is unchanged."""
    return str(PurePath(*(PARENT if part == ".." else part for part in PurePath(name).parts)))


def top(name: str) -> str:
    """`a/b/c` → `a`, and of what is above, `.dom0-parent/a/b` → `.dom0-parent/a`."""
    return str(PurePath(*PurePath(name).parts[: levels(name) + 1]))


def levels(name: str) -> int:
    """How many directories above the project `name` in an image is."""
    parts = PurePath(name).parts
    return next((number for number, part in enumerate(parts) if part != PARENT), len(parts))


def is_around(name: str) -> bool:
    """Whether `name` in an image is the project's directory, or one around it."""
    return levels(name) == len(PurePath(name).parts)


def names_down(directory: Path, number: int) -> tuple[str, ...]:
    """The names of directories from `number` levels above the project down to it; none where an image does not say."""
    names = directory.parts
    if os.path.lexists(directory / PARENT):
        try:
            names = (directory / WAY).readlink().parts
        except OSError:
            return ()
    found = names[max(len(names) - number, 0) :]
    return () if len(found) < number or {"/", ".."}.intersection(found) else found


def within(directory: Path, number: int) -> Iterator[tuple[str, str]]:
    """The path from the directory `number` levels above down to the project, step by step, and each step's name in an
    image.
    """
    names = names_down(directory, number)
    for depth in range(1, len(names) + 1):
        yield "/".join(names[:depth]), str(PurePath(*[PARENT] * (number - depth)))


def find(directory: Path, name: str) -> Path:
    """The path of what is `name` in an image: below `directory` where that is unpacked from an image, else above it."""
    if not is_above(name) or os.path.lexists(directory / PARENT):
        return directory / name
    parts, number = PurePath(name).parts, levels(name)
    return Path(os.path.normpath(directory.joinpath(*[".."] * number, *parts[number:])))


def may_take(directory: Path, name: str) -> bool:
    """Whether the image of the project in `directory` may hold `name`, written with `..`; it need not be there."""
    if os.path.lexists(directory / PARENT):
        return not is_around(inner(name)) or bool(names_down(directory, levels(inner(name))))
    path, tree = find(directory, inner(name)), _work_tree(directory)
    return tree is not None and path.is_relative_to(tree) and Path(os.path.realpath(path)) == path


def is_free(directory: Path, name: str) -> bool:
    """Whether nothing is at `name`, written with `..`: then a bind of it takes no file from outside the project."""
    path = find(directory, inner(name))
    return not os.path.lexists(path) and Path(os.path.realpath(path)) == path


def _work_tree(directory: Path) -> Path | None:
    """The git work tree that a directory is in, for a submodule the outermost one; never a home directory or `/`."""
    tree: Path | None = None
    for path in (directory, *directory.parents):
        if not os.path.lexists(path / ".git"):
            continue
        if is_home(path):
            break
        if tree and not _git_directory(tree).is_relative_to(_git_directory(path) / "modules"):  # no submodule of it
            break
        tree = path
    return tree


def is_home(path: Path) -> bool:
    """Or `/`: these hold more than one project."""
    return path in (Path("/"), Path("~").expanduser())


def _git_directory(tree: Path) -> Path:
    """Git's directory of a work tree: `.git`, or the one that a file of this name says."""
    found = tree / ".git"
    if not found.is_file():
        return found
    with found.open(errors="replace") as file:
        return Path(os.path.normpath(tree / file.read(_LONGEST).removeprefix("gitdir:").strip()))
