"""The size of what goes into a project's image. A project describes a machine, and data of services is no part of it.

Sizes are those of the files' metadata: nothing is read, and a sparse file counts with its full size, as in an image.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath

from dom0.compose import above
from dom0.errors import ProjectError
from dom0.images.contents import TreeEntry
from dom0.sizes import rounded

MOST = 512_000_000  # bytes of a project in its image
MUCH = 64_000_000  # bytes that are worth a warning
_SHOWN = 5


def check(directory: Path, found: Iterable[TreeEntry]) -> dict[str, int]:
    """The bytes of each file. Raises ProjectError if they are too many for an image."""
    sizes: dict[str, int] = {}
    for entry in found:
        with contextlib.suppress(FileNotFoundError):  # reported when it is copied
            told = os.lstat(entry.path)
            sizes[entry.name] = told.st_size if stat.S_ISREG(told.st_mode) else 0
    if (total := sum(sizes.values())) > MOST:
        heaviest = _heaviest(sizes)
        shown = ", ".join(f"{name} {rounded(size)}" for name, size in heaviest)
        raise ProjectError(
            f"{directory}: {rounded(total)} would go into the machine's image, {rounded(MOST)} is the most: {shown}",
            hint=f"data is no part of an image; keep it out: {_keep_out(heaviest[0][0], directory)}\n"
            "of a bound directory the machine then has its own, below /var/lib/dom0/project: copy there what is in\n"
            "this one, or bind it by an absolute path and it stays where it is",
        )
    return sizes


def words(directory: Path, sizes: dict[str, int], bound: Collection[str]) -> Iterator[str]:
    """What to say of data that goes into the image. `bound`: directories that services bind, to write in them."""
    for bind in bound:
        size = sum(size for name, size in sizes.items() if PurePath(name).is_relative_to(bind))
        if size > MUCH:
            yield (
                f"{bind}: {rounded(size)} go into the image, and services write there; if it is data, keep it out: "
                f"{_keep_out(bind, directory)}"
            )
    others = {name: size for name, size in sizes.items() if not any(PurePath(name).is_relative_to(it) for it in bound)}
    if (total := sum(others.values())) > MUCH:
        shown = ", ".join(f"{name} {rounded(size)}" for name, size in _heaviest(others))
        yield f"{rounded(total)} of files go into the image: {shown}; .dockerignore can keep out what is not needed"


def _heaviest(sizes: dict[str, int]) -> list[tuple[str, int]]:
    """By the file or directory at the top of the project, or above it."""
    totals: dict[str, int] = {}
    for name, size in sizes.items():
        totals[above.top(name)] = totals.get(above.top(name), 0) + size
    heaviest = sorted(totals.items(), key=lambda total: -total[1])[:_SHOWN]
    return [total for total in heaviest if total[1] > MUCH // 8] or heaviest[:1]


def _keep_out(name: str, directory: Path) -> str:
    """A command that a person can paste."""
    pattern = re.sub(r"([\\*?\[])", r"\\\1", name)
    return f"echo {shlex.quote(pattern)} >>{shlex.quote(str(directory / '.dockerignore'))}"
