"""Times as a person reads them, the same everywhere: how long ago, or a date and time of this machine's zone."""

from __future__ import annotations

from datetime import datetime


def ago(seconds: float) -> str:
    """A length of time, short: 8s, 3m, 2h, 5d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def moment(seconds: float) -> str:
    """A time of the epoch: `2026-11-23 23:25:40`."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
