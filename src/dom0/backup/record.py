"""What is known of the last backup of each volume, in files of the state directory. Light: the agent reads it often."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dom0.durable import write_atomic
from dom0.names import state_directory


class BackupRecord(msgspec.Struct, frozen=True, kw_only=True):
    repository: str  # its ID
    to: str
    snapshot: str
    time: float  # when it was made
    files: int
    size: int  # bytes of all files
    complete: bool  # all of them could be read


def file_of(key: str) -> Path:
    """Of the volume with that key."""
    return state_directory() / "backups" / f"{key}.json"


def read(key: str) -> BackupRecord | None:
    """None where there is none, or none that can be read: then the next backup makes it anew."""
    try:
        return msgspec.json.decode(file_of(key).read_bytes(), type=BackupRecord)
    except (OSError, msgspec.DecodeError):
        return None


def write(key: str, record: BackupRecord) -> None:
    """Raises Unwritable."""
    write_atomic(file_of(key), msgspec.json.encode(record))
