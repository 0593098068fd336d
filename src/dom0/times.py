"""Times as a person reads them, the same everywhere: how long ago, or a date and time."""

from __future__ import annotations

from datetime import datetime, tzinfo


def ago(seconds: float) -> str:
    """A length of time, short: 8s, 3m, 2h, 5d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def moment(seconds: float, zone: tzinfo | None = None) -> str:
    """A time of the epoch: `2026-11-23 23:25:40`; in this machine's zone where none is said."""
    return datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%d %H:%M:%S")
