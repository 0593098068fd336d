"""Problems of where a machine with the base OS keeps its data, read anew at every request.

On another Linux there is no such document, and nothing to say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.health import Problem, Severity
from dom0.host import disk

log = logging.getLogger(__name__)

LEAST_FREE = 64 * 1024 * 1024  # bytes; with less the Engine soon fails at whatever it is asked


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
