"""Where files as large as a base OS lie for a moment."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path("/var/tmp")  # noqa: S108 -- names in it are random; on a disk, where /tmp may be memory
