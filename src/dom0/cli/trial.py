"""`dom0 try`: bring a project up that goes back by itself unless it is confirmed."""

from __future__ import annotations

import click

from dom0.compose.durations import seconds

SHORTEST, LONGEST = 5.0, 7 * 86400.0  # seconds


def read_duration(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        length = seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no duration: write 60s, 5m or 1h30m") from error
    if not SHORTEST <= length <= LONGEST:
        raise click.BadParameter(f"{value} is not between 5s and a week")
    return length
