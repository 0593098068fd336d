"""Whose a file is: the project's as long as it is what we placed, the machine's once that has changed it. Pure.

As dpkg does with conffiles, three versions decide: what we placed, what lies there, what the project says now. What
the machine wrote or removed is never overwritten, removed or brought back; where the project changed as well, that is
a conflict, which a person settles. Who may do what with a file is decided apart from its content, and never a conflict:
a mode or an owner that the machine changed stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

DIRECTORY = "directory"


class FileVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """`content` is `file SIZE sha256:…`, `link TARGET`, DIRECTORY or another kind; a link has no mode of its own."""

    content: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()  # extended ones

    @property
    def kind(self) -> str:
        return self.content.partition(" ")[0]


Placed = Sequence[FileVersion | None]
"""What we placed, None where we placed nothing. More than one while a placement is under way: it may be any of them."""

NEVER: Placed = (None,)


class FileAction(StrEnum):
    NOTHING = "nothing"
    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"
    KEEP = "keep"  # the machine changed it, the project did not
    CONFLICT = "conflict"  # both did: as KEEP, and a person is told


class FileStep(NamedTuple):
    """`there` is what lies there, `wanted` what is to, `theirs` what the project says."""

    action: FileAction
    there: FileVersion | None
    wanted: FileVersion | None
    theirs: FileVersion | None


def decide(there: FileVersion | None, placed: Placed, theirs: FileVersion | None) -> FileStep:
    ours = {version.content if version else None for version in placed}
    if theirs is None:  # what the project no longer says goes if we brought it
        if there is None:
            return FileStep(FileAction.NOTHING, there, None, theirs)
        if there.content == DIRECTORY or there.content not in ours:  # what uses a directory may just be empty
            return FileStep(FileAction.KEEP, there, there, theirs)
        return FileStep(FileAction.REMOVE, there, None, theirs)
    changed = FileAction.KEEP if ours == {theirs.content} else FileAction.CONFLICT
    if there is None:
        is_new = None in ours
        return FileStep(FileAction.CREATE if is_new else changed, there, theirs if is_new else None, theirs)
    if there.content == theirs.content or there.content in ours:
        wanted = _with_rights(theirs, there, placed)
        return FileStep(FileAction.NOTHING if wanted == there else FileAction.UPDATE, there, wanted, theirs)
    if changed is FileAction.CONFLICT or there.kind != theirs.kind:
        return FileStep(changed, there, there, theirs)
    wanted = replace(_with_rights(theirs, there, placed), content=there.content)
    return FileStep(FileAction.KEEP if wanted == there else FileAction.UPDATE, there, wanted, theirs)


def _with_rights(theirs: FileVersion, there: FileVersion, placed: Placed) -> FileVersion:
    """`theirs`, with each right that the machine changed as the machine has it."""
    if there.kind != theirs.kind:
        return theirs
    known = [version for version in placed if version is not None and version.kind == there.kind]

    def of(*fields: str) -> dict[str, Any]:
        found, wanted = (tuple(getattr(version, field) for field in fields) for version in (there, theirs))
        ours = any(found == tuple(getattr(version, field) for field in fields) for version in known)
        return dict(zip(fields, wanted if ours else found, strict=True))

    return replace(theirs, **of("mode"), **of("uid", "gid"), **of("attributes"))


def under_way(placed: Placed, step: FileStep) -> Placed:
    """What to write down before `step` is done: a kill leaves one of these."""
    between = [None] if step.there and step.wanted and step.there.kind != step.wanted.kind else []
    return list(dict.fromkeys([*placed, *between, step.theirs]))


def done(placed: Placed, step: FileStep) -> Placed:
    """What to write down afterwards. Of what the project no longer says nothing is known any more."""
    return placed if step.action is FileAction.CONFLICT else (step.theirs,)
