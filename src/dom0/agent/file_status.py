"""Documents of the agent's API about the project's files. Light to import, used by the CLI too."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from dom0.agent.three_way import FileVersion

Paths = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class FileState(StrEnum):
    CHANGED = "changed"  # by the machine alone
    REMOVED = "removed"  # by the machine
    CONFLICT = "conflict"  # changed by the machine and by the project
    CREATE = "create"  # these three: by the next placement
    UPDATE = "update"
    REMOVE = "remove"


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    path: str  # relative to the project
    state: FileState


class FileDiff(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    state: FileState | None  # None: the machine has what the project says
    diff: str = ""  # unified, from the machine's to the project's
    notes: tuple[str, ...] = ()  # what lines of text do not show: binary files, a link, another mode or owner


class DiffRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /v1/files/diff`."""

    path: Annotated[str, msgspec.Meta(min_length=1)]


class FilesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    paths: Paths


class FilesPlanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    files: dict[str, FileVersion]
