"""Bytes of the last hour that were downloaded and thrown away, by name, in a directory that all processes share:
whoever is about to ask for the same again sees what it has cost. A kill loses at most the count of the attempt that
it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from dom0.durable import writing
from dom0.flock import open_locked

REMEMBERED = 3600.0  # seconds
_LINE = re.compile(r"([0-9]{1,12}\.[0-9]{3}) ([0-9]{1,15})\n")


class Waste:
    """`now`: seconds since the epoch."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def amount(self, name: str, now: float) -> int:
        return sum(_entries(self.path(name), now).values())

    def left(self, name: str, now: float) -> float:
        """Seconds until it becomes less."""
        return min(_entries(self.path(name), now), default=now - REMEMBERED) + REMEMBERED - now

    def add(self, name: str, amount: int, now: float) -> None:
        """What is older goes, of all names. Raises Unwritable."""
        with writing(self._directory):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            held = open_locked(self._directory)  # a file that somebody has just made would look old
            try:
                for path in self._directory.iterdir():
                    if not _entries(path, now):
                        path.unlink(missing_ok=True)
                with self.path(name).open("a") as file:
                    file.write(f"{now:.3f} {amount}\n")
            finally:
                os.close(held)

    def path(self, name: str) -> Path:
        """Whose removal forgets it."""
        return self._directory / hashlib.sha256(name.encode()).hexdigest()


def _entries(path: Path, now: float) -> dict[float, int]:
    """By the time; of what is no file of ours, none."""
    found: dict[float, int] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for at, amount in _LINE.findall(path.read_text()):
            if 0 <= now - float(at) + 0.001 <= REMEMBERED:
                found[float(at)] = found.get(float(at), 0) + int(amount)
    return found
