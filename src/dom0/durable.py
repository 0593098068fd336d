"""Files that are written whole or not at all, so that a kill or a power cut leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dom0.errors import Dom0Error


class Unwritable(Dom0Error):
    """The disk is full, broken or not ours to write."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong on the disk inside of the block is raised as Unwritable."""
    try:
        yield
    except OSError as error:
        first = error.args[0] if error.args else None
        # shutil's, which takes long to load, carries a list of (source, target, reason)
        reason = first[0][-1] if isinstance(first, list) else error.strerror or error
        message = f"{path}: cannot be written: {reason}"
        raise Unwritable(message, hint="free space or mend the disk: df -h") from error


def write_atomic(
    path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True, owner: tuple[int, int] | None = None
) -> None:
    """`durable`: survives a power cut, not only a kill; `owner`: user and group, if not ours. Raises Unwritable."""
    temporary = path.with_name(f".{path.name}.new")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # of a killed one; or a link, to where nothing of ours belongs
            with temporary.open("xb") as file:
                os.fchmod(file.fileno(), mode)
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                sync(path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a directory, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
