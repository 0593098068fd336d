"""Sizes as Docker and Compose spell them, `512m`. Source: `RAMInBytes` of github.com/docker/go-units."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def rounded(size: int) -> str:
    """For people: 1.5 GB, 230 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def parse(size: str) -> int:
    """Bytes: `512m`, `1.5g`, `2GiB`; a unit is the next smaller one 1024 times. ValueError: it is none."""
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ValueError(f"{size!r} is no size, as 512m or 2g")
    unit = _UNITS[found[2].lower()]
    return int(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit
