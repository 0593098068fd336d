"""What the journal says of a machine: its entries, and how many of those that are alike are written. Pure."""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec.structs import replace

DOM0 = "dom0"  # the actor of what the agent does by itself
ENGINE = "engine"  # of what the Engine tells: a program ended, or somebody has asked the Engine and not us
LONGEST_NAME = 300  # characters of a subject or an actor
LONGEST_TEXT = 1000  # of a text or a reason
BURST = 5  # entries alike that are written one by one
WINDOW, LONGEST_WINDOW = 60.0, 600.0  # seconds that a burst is counted for, growing while it goes on
MOST_KEYS = 500  # of entries that may turn out to be a burst

actor: ContextVar[str] = ContextVar("actor", default=DOM0)
"""Who has asked for what is done here. A task has that of the one that started it: a change goes on when its command
has ended, and is still that person's."""


class Kind(StrEnum):
    """All but those of steps: `start-container` is the step StartContainer, done."""

    MACHINE_BOOTED = "machine-booted"
    AGENT_STARTED = "agent-started"
    AGENT_ENDED = "agent-ended"
    COMMAND = "command"  # somebody has asked for it
    REFUSED = "refused"  # a command, or the project of our own image
    GENERATION_BEGUN = "generation-begun"
    GENERATION_GOOD = "generation-good"
    GENERATION_TRIAL = "generation-trial"
    GENERATION_CONFIRMED = "generation-confirmed"
    GENERATION_FAILED = "generation-failed"
    GENERATION_EXPIRED = "generation-expired"
    GENERATION_ABORTED = "generation-aborted"
    GENERATION_REPLACED = "generation-replaced"
    GENERATION_BACK = "generation-back"  # the machine goes back to it
    GENERATION_RELEASED = "generation-released"  # what it took over is Docker Compose's again
    STEP_REFUSED = "step-refused"  # by the Engine
    CONTAINER_EXITED = "container-exited"
    CONTAINER_OOM = "container-oom"
    CONTAINER_STOPPED = "container-stopped"
    CONTAINER_PAUSED = "container-paused"
    ENGINE_TROUBLE = "engine-trouble"  # it does not answer, or not what we asked
    ENGINE_BACK = "engine-back"
    HANDOVER_BEGUN = "handover-begun"
    HANDOVER_FAILED = "handover-failed"
    FILE_CONFLICT = "file-conflict"
    REWIRED = "rewired"
    PULL_BEGUN = "pull-begun"
    PULL_DONE = "pull-done"
    PULL_FAILED = "pull-failed"
    LOGIN = "login"  # by ssh
    DEVICE_PAIRED = "device-paired"  # one that may look at the page over the network
    DEVICE_REFUSED = "device-refused"
    PAGE_CERTIFICATE = "page-certificate"  # it has another one there
    NOTIFIED = "notified"  # a person, by x-dom0.notify
    NOTIFY_FAILED = "notify-failed"
    DOWN = "down"
    ENTRIES_LOST = "entries-lost"  # they could not be written, or not be read again


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`kind` is one of Kind, or of a step; or of a newer agent, whose image the machine has left again."""

    seq: int = 0  # its number, greater than that of every earlier one
    time: float
    kind: str
    subject: str  # what it is about: a container, a network, `generation 7`, `dom0 up`
    text: str  # one line for people
    reason: str = ""
    actor: str = DOM0
    generation: int = 0  # number of the one that the machine was at
    count: int = 1  # how many alike it stands for …
    since: float = 0.0  # … and when the first of them was; 0: it is only one


class EventsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of `GET /v1/events`."""

    since: Annotated[int, msgspec.Meta(ge=0)] = 0  # only those with a greater number
    follow: bool = False
    tail: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0  # only the last ones of what is kept; 0: all


def clip(text: str, most: int = LONGEST_TEXT) -> str:
    """`text` of at most so many characters, and without halves of surrogates, which no JSON can hold."""
    whole = text.encode(errors="replace").decode()
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


class _Burst(msgspec.Struct):
    began: float
    window: float = WINDOW
    seen: int = 1
    held: Entry | None = None


class Bursts:
    """Of entries that are alike (kind, subject, actor) the first ones are written one by one; those that follow within
    a window are one entry, written when it has passed. So what goes wrong in a loop does not push out all else. Of
    logins the actor, which has an address, may be made up, and is not looked at.
    """

    def __init__(self) -> None:
        self._bursts: dict[tuple[str, str, str], _Burst] = {}
        self._due_at = 0.0

    def take(self, entry: Entry) -> list[Entry]:
        """What is to be written now."""
        ready = self.due(entry.time)
        key = (entry.kind, entry.subject, "" if entry.kind == Kind.LOGIN else entry.actor)
        burst = self._bursts.get(key)
        if burst is None:
            if len(self._bursts) >= MOST_KEYS:
                ready += self.end()
            self._bursts[key] = _Burst(began=entry.time)
            self._due_at = min(self._due_at or entry.time + WINDOW, entry.time + WINDOW)
            return [*ready, entry]
        burst.seen += 1
        if burst.seen <= BURST:
            return [*ready, entry]
        before = burst.held
        since = before.since if before else entry.time
        burst.held = replace(entry, count=before.count + 1 if before else 1, since=since)
        return ready

    def due(self, now: float) -> list[Entry]:
        """Those whose window has passed, or will not within its length: the clock was put back."""
        if not self._due_at - LONGEST_WINDOW <= now < self._due_at:
            over = {key: burst for key, burst in self._bursts.items() if not 0 <= now - burst.began < burst.window}
            for key, burst in over.items():
                if burst.held is None:
                    del self._bursts[key]
                else:  # it goes on: from now on all are counted
                    window = min(2 * burst.window, LONGEST_WINDOW)
                    self._bursts[key] = _Burst(began=now, window=window, seen=BURST)
            self._due_at = min((burst.began + burst.window for burst in self._bursts.values()), default=0.0)
            return [_alone(burst.held) for burst in over.values() if burst.held is not None]
        return []

    def end(self) -> list[Entry]:
        """All that is held: nothing is counted any more."""
        held = [_alone(burst.held) for burst in self._bursts.values() if burst.held is not None]
        self._bursts, self._due_at = {}, 0.0
        return held


def _alone(held: Entry) -> Entry:
    return replace(held, since=0.0) if held.count == 1 else held
