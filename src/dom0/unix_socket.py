"""Unix sockets that are complete before they have their names, so that no client finds one half-made."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listen(path: Path, *, mode: int, owner: tuple[int, int] = (-1, -1), backlog: int = 128) -> socket.socket:
    """A new one that listens, in the place of what has that name; `owner`: user and group, -1: ours. Raises OSError."""
    unnamed = path.with_name(f".{path.name}.new")
    unnamed.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(unnamed))
        os.chown(unnamed, *owner)
        unnamed.chmod(mode)
        listener.listen(backlog)
        unnamed.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener
