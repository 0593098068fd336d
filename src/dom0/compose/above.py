"""Files above a project's directory that it names with `../`: how they are called, and which may be taken.

In an image, and on a machine, nothing is above the project: `../data` is `.dom0-parent/data` there. So the project's
own paths stay what they are, whatever else it names. What is taken lies in the same git work tree, and was named: a
file elsewhere is the person's own. What is not there yet may be bound from anywhere. `..` itself is `.dom0-parent`,
without the project: nothing is on a machine twice (see around.py for what containers see of it).
Light to import: who only asks for a digest needs it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

PARENT = ".dom0-parent"
_LONGEST = 4096  # characters of a path
WAY = "compose.d/.way"  # in an image: a link that says `names_down` of the highest directory around that is bound


def is_above(name: str) -> bool:
    """Whether an image calls something so that is above the project."""
    return PurePath(name).parts[:1] == (PARENT,)


def inner(name: str) -> str:
    """What an image calls it: `../../data` → `.dom0-parent/.dom0-parent/data`; a name without `..` as it is."""
    return str(PurePath(*(PARENT if part == ".." else part for part in PurePath(name).parts)))


def top(name: str) -> str:
    """`a/b/c` → `a`, and of what is above, `.dom0-parent/a/b` → `.dom0-parent/a`."""
    return str(PurePath(*PurePath(name).parts[: levels(name) + 1]))


def levels(name: str) -> int:
    """How far above the project it lies what an image calls so."""
    parts = PurePath(name).parts
    return next((number for number, part in enumerate(parts) if part != PARENT), len(parts))


def is_around(name: str) -> bool:
    """Whether an image calls the project's directory so, or one around it."""
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
    """Of the directory so far above: each one in it that is around the project or is it, and its name in an image."""
    names = names_down(directory, number)
    for depth in range(1, len(names) + 1):
        yield "/".join(names[:depth]), str(PurePath(*[PARENT] * (number - depth)))


def find(directory: Path, name: str) -> Path:
    """Where it is that an image calls `name`: below `directory` where that is the content of an image, else above."""
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
    """Whether nothing is called `name`, written with `..`: a bind of it takes nobody's file, wherever it leads."""
    path = find(directory, inner(name))
    return not os.path.lexists(path) and Path(os.path.realpath(path)) == path


def _work_tree(directory: Path) -> Path | None:
    """The git work tree that a directory is in, of a submodule the one that it is part of; none that is a person's
    whole home, or the whole machine.
    """
    tree: Path | None = None
    for path in (directory, *directory.parents):
        if not os.path.lexists(path / ".git"):
            continue
        if path in (Path("/"), Path("~").expanduser()):
            break
        if tree and not _git_directory(tree).is_relative_to(_git_directory(path) / "modules"):  # no submodule of it
            break
        tree = path
    return tree


def _git_directory(tree: Path) -> Path:
    """Where git keeps what it knows of a work tree: in there, or where a file says."""
    found = tree / ".git"
    if not found.is_file():
        return found
    with found.open(errors="replace") as file:
        return Path(os.path.normpath(tree / file.read(_LONGEST).removeprefix("gitdir:").strip()))
