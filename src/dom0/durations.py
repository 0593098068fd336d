"""Durations as Compose spells them, `1m30s`. Source: Go's `time.ParseDuration`."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_LONGEST = 2**63 - 1  # nanoseconds; what Go and the Engine count in


def nanoseconds(duration: str) -> int:
    """A duration as Compose prints it: `1m30s`, `500ms`, `0s`. ValueError: it is none."""
    if duration in ("", "0", "0s"):
        return 0
    sign, text = (-1, duration[1:]) if duration.startswith("-") else (1, duration)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{duration!r} is no duration")
    total = sum(float(number) * _NANOSECONDS[unit] for number, unit in parts)
    if total > _LONGEST:
        raise ValueError(f"{duration!r} is longer than 292 years")
    return sign * round(total)


def seconds(duration: str) -> float:
    return nanoseconds(duration) / 1e9
