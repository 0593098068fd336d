"""`dom0 try`: bring a project up that goes back by itself unless it is confirmed."""

from __future__ import annotations

import re
from pathlib import Path

import click

from dom0.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smh])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smh])")
SHORTEST, LONGEST = 5.0, 7 * 86400.0  # seconds


class Duration(click.ParamType):
    """`90s`, `5m`, `1h30m` as Compose spells them, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if not _DURATION.fullmatch(str(value)):
            self.fail(f"{value!r} is no duration, write 60s, 5m or 1h30m", param, ctx)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(str(value)))
        if not SHORTEST <= seconds <= LONGEST:
            self.fail(f"{value} is not between 5s and a week", param, ctx)
        return seconds
