"""Problems of where a machine keeps its data, read anew at every request.

What the base OS says of its disks is in a document, which is not there on another Linux.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.health import Problem, Severity
from dom0.host import disk
from dom0.names import HOST_ROOT

log = logging.getLogger(__name__)

FILLING_SHARE, FILLING_FREE = 0.05, 2 * 1024**3  # with less of both, in bytes, a disk is nearly full
LEAST_FREE = 64 * 1024 * 1024  # bytes; with less the Engine soon fails at whatever it is asked


def filling(paths: Sequence[Path]) -> tuple[Problem, ...]:
    """Of the file systems that have them, those that are nearly full."""
    found: dict[int, Problem] = {}
    for path in paths:
        try:
            device, left = path.stat().st_dev, os.statvfs(path)
        except OSError:  # not of this machine, or not for us
            continue
        free = left.f_bavail * left.f_frsize
        if free < FILLING_FREE and free < FILLING_SHARE * left.f_blocks * left.f_frsize:
            shown = str(path).removeprefix(str(HOST_ROOT))
            title = f"where {shown} is, the disk is nearly full: {free // 1024**2} MiB are left"
            hint = "what takes the room: docker system df; what nobody uses: docker system prune"
            problem = Problem(code="disk-filling", subject=shown, title=title, severity=Severity.WARNING, hint=hint)
            found.setdefault(device, problem)
    return tuple(found.values())


def problems(run: Path, state: Path) -> tuple[Problem, ...]:
    """Of the machine whose /run/dom0 and /var/lib/dom0 these are."""
    document = run / disk.DOCUMENT
    try:
        found = disk.decode(document.read_bytes())
        since = document.stat().st_mtime
        left = os.statvfs(state)
    except OSError:
        return ()
    except Dom0Error as error:
        log.debug("%s", error.message)
        return ()
    return tuple(_problems(found, left.f_bavail * left.f_frsize, since))


def _problems(found: disk.Disks, free: int, since: float) -> Iterator[Problem]:
    for trouble in found.problems:
        if trouble.code != disk.FULL:  # which changes: that is asked of the disk
            in_memory = trouble.code == disk.IN_MEMORY
            yield Problem(
                code="data-in-memory" if in_memory else "data-disk",
                subject="data" if in_memory else found.data.device or "disks",
                title=trouble.text,
                severity=Severity.WARNING,
                hint="dom0 disk ls",
                since=since,
            )
    if free < LEAST_FREE:
        where = found.data.device or "memory"
        title = f"where this machine keeps its data, {where}, there are {free // 1024} KiB left"
        yield Problem(code="data-full", subject="data", title=title, hint="docker system df", since=since)
