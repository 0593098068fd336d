"""What an observer inside a virtual machine says on a serial port (observer.c), as times since that was switched on.

Times are this machine's monotonic clock. What an Engine had done before it answered comes with its own time, by the
clock of its machine; how far that one is from ours, the event tells that arrived fastest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Heard:
    """`at`: seconds since the machine was switched on."""

    at: float
    line: str


@dataclass(frozen=True)
class Event:
    at: float  # as Heard
    name: str  # of the container
    action: str


def engine_answers(heard: Iterable[Heard]) -> float | None:
    return next((one.at for one in heard if one.line.startswith("HTTP/")), None)


def events(heard: Iterable[Heard]) -> list[Event]:
    """In the order in which they came."""
    found = [(one.at, event) for one in heard if (event := _event(one.line))]
    if not found:
        return []
    difference = min(at - stamp for at, (stamp, _, _) in found)
    return [Event(stamp + difference, name, action) for _, (stamp, name, action) in found]


def all_run(found: Iterable[Event], names: Iterable[str]) -> float | None:
    """When the last of `names` was started; the latest start of each counts."""
    return _last({event.name: event.at for event in found if event.action == "start"}, names)


def all_healthy(found: Iterable[Event], names: Iterable[str]) -> float | None:
    """When the Engine first knew that each of `names` is healthy."""
    healthy: dict[str, float] = {}
    for event in found:
        if event.action == "health_status: healthy":
            healthy.setdefault(event.name, event.at)
    return _last(healthy, names)


def _last(times: dict[str, float], names: Iterable[str]) -> float | None:
    wanted = set(names)
    return max(times[name] for name in wanted) if wanted <= times.keys() else None


def _event(line: str) -> tuple[float, str, str] | None:
    """Its time by the machine's own clock, container, action; a line that two writers shared is none."""
    try:
        document = json.loads(line)
        return document["timeNano"] / 1e9, document["Actor"]["Attributes"]["name"], document["Action"]
    except (ValueError, KeyError, TypeError):
        return None
