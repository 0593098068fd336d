"""The status of the host's launcher: which image it runs as dom0, and why that is not dom0:latest.

It is a file that anybody with root may have written: only the lines that docs/launcher.md names count. Imports little,
for commands that read it when no agent answers.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from dom0.health import Problem

FILE = "os/launcher"  # below /run/dom0
_LARGEST = 4096  # bytes that are read
_LONGEST = 300  # characters of a reason


class Runs(StrEnum):
    STARTING = "starting"  # nothing yet
    LATEST = "latest"
    CHOSEN = "chosen"  # another image that a person runs as dom0
    LAST_GOOD = "last-good"
    RESCUE = "rescue"
    STOPPED = "stopped"  # by a person
    NOTHING = "nothing"


class LauncherStatus(msgspec.Struct, frozen=True):
    runs: Runs
    image: str = ""  # ID, "" if none runs
    why: str = ""


def read_status(run: Path) -> LauncherStatus | None:
    """`run` is /run/dom0. None if there is no launcher, or its file is invalid."""
    try:
        with (run / FILE).open("rb") as opened:
            text = opened.read(_LARGEST).decode(errors="replace")
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        return LauncherStatus(Runs(fields.get("runs", "")), fields.get("image", ""), fields.get("why", "")[:_LONGEST])
    except (OSError, ValueError):
        return None


def problems(run: Path, image: str) -> tuple[Problem, ...]:
    """For the agent of `image`: whether the launcher runs it instead of a dom0:latest that does not work."""
    found = read_status(run)
    if found is None or found.runs is not Runs.LAST_GOOD or found.image != image:
        return ()
    return (
        Problem(
            code="last-good",
            subject="dom0",
            title=f"runs from the last image that was good: {found.why}",
            hint="see why: docker logs dom0-failed; then bring another image: dom0 up",
        ),
    )
