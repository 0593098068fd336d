"""The log: one line an event on standard error, `time level area: message`."""

from __future__ import annotations

import logging
import sys


def configure(level: str = "info") -> None:
    """Send the package's log to standard error from `level` up. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger("dom0")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
