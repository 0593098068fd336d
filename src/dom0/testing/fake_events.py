"""The fake Engine's event history and its streams, filtered as the Engine does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence

from dom0.engine.values import Event
from dom0.errors import EngineUnreachable
from dom0.testing import virtual_time

KEPT = 256  # as moby's eventsLimit: what `since` can still tell

Filters = Mapping[str, Sequence[str]]


class EventLog:
    def __init__(self) -> None:
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self._streams: list[asyncio.Queue[Event | None]] = []

    def tell(self, kind: str, action: str, id_: str, attributes: Mapping[str, str]) -> None:
        event = Event(type=kind, action=action, id=id_, attributes=dict(attributes), time=virtual_time.tick())
        self.kept.append(event)
        for stream in self._streams:
            stream.put_nowait(event)

    def end_streams(self) -> None:
        """Every stream breaks and the history is lost, as when the Engine restarts."""
        self.kept.clear()
        for stream in self._streams:
            stream.put_nowait(None)

    def between(self, since: float, until: float) -> tuple[Event, ...]:
        return tuple(event for event in self.kept if since <= event.time <= until)

    async def follow(self, since: float | None, filters: Filters) -> AsyncGenerator[Event, None]:
        stream: asyncio.Queue[Event | None] = asyncio.Queue()
        for event in self.kept if since is not None else ():
            if event.time >= (since or 0.0):
                stream.put_nowait(event)
        self._streams.append(stream)
        try:
            while (event_ := await stream.get()) is not None:
                if matches(event_, filters):
                    yield event_
        finally:
            self._streams.remove(stream)
        raise EngineUnreachable("Docker Engine: events: the Docker Engine ended the stream")


def matches(event: Event, filters: Filters) -> bool:
    """Every key must match, by any of its values."""
    return all(any(_matches_one(event, key, value) for value in values) for key, values in filters.items())


def _matches_one(event: Event, key: str, value: str) -> bool:
    match key:
        case "type":
            return event.type == value
        case "event":
            return event.action == value or event.action.split(":")[0] == value
        case "container":
            return event.type == "container" and value in (event.id, event.attributes.get("name"))
        case "label":
            name, equals, wanted = value.partition("=")
            return name in event.attributes and (not equals or event.attributes[name] == wanted)
    raise AssertionError(f"the fake Engine does not know the event filter {key}")
