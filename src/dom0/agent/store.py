"""The agent's files: written whole or not at all, so that a kill or a power cut leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0.errors import Dom0Error

T = TypeVar("T")


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """`durable`: survives a power cut, not only a kill. Raises Dom0Error when the disk is full or not writable."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise Dom0Error(f"{path}: cannot be written: {error.strerror}", hint="free space or mend the disk") from error


def read_json(path: Path, type_: type[T]) -> T | None:
    """None when there is no such file. Raises Dom0Error when it is not what we wrote."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=type_)
    except msgspec.DecodeError as error:
        raise Dom0Error(f"{path}: is damaged: {error}", hint=f"move it away: mv {path} {path}.damaged") from error


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    write_atomic(path, msgspec.json.encode(value), durable=durable)
