"""What the Engine cannot tell and the planner must know. Kept by the agent across its own restarts."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

CRASH_BUDGET = 10  # ends within CRASH_WINDOW before a service is given up
CRASH_BUDGET_NEW = 3  # the same while its generation has not been good yet
CRASH_WINDOW = 600.0  # seconds
BACKOFF_FIRST = 1.0  # seconds before the second try; the first one is at once
BACKOFF_MOST = 60.0
DOUBLINGS = 10  # more change nothing


class SlotVersion(msgspec.Struct, frozen=True):
    """Which configuration of a slot something is about."""

    hash: str
    image_id: str


NO_VERSION = SlotVersion("", "")  # of what has no slot: networks, volumes, containers that are to be removed


class RefusedStep(msgspec.Struct, frozen=True, kw_only=True):
    """The Engine's last refusal of a step; it is not tried again before `retry_at`, unless the slot has changed."""

    version: SlotVersion
    subject: str  # of the Problem it is
    message: str
    code: str
    hint: str = ""
    count: int = 1
    retry_at: float = 0.0


_AS_WRITTEN = {"stopped_by_person": "held", "stop_expected": "quiet", "health_passed": "gated", "last_good": "kept"}


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_AS_WRITTEN):
    """Keys are Slot.key unless said otherwise; times are seconds since the epoch."""

    stopped_by_person: dict[str, float] = {}  # container ID -> since: a person stopped it
    stopped: dict[str, float] = {}  # container ID -> when: we stopped it, or the Engine did when it went down
    running: tuple[str, ...] = ()  # container IDs that ran when we last looked
    ended: dict[str, float] = {}  # container ID -> when an event told us of its last end
    completed: dict[str, SlotVersion] = {}  # jobs that ended with 0, also when their container is gone
    crash_loops: dict[str, SlotVersion] = {}  # crash loops, and budgets used up
    crashes: dict[str, tuple[float, ...]] = {}  # container ID -> when it ended by itself or was found unhealthy
    refused: dict[str, RefusedStep] = {}  # by Step.lock
    health_passed: dict[str, float] = {}  # container ID -> `started` for which the health gate has passed
    post_started: dict[str, float] = {}  # container ID -> `started` of the last start whose post_start has succeeded
    last_good: dict[str, SlotVersion] = {}  # its containers are stopped, not removed, while a new one is pending
    pending: bool = False  # the generation has not been good yet
    signalled: dict[str, float] = {}  # container ID -> when: somebody else sent it a signal
    stop_expected: dict[str, float] = {}  # container ID -> until: it was signalled and ended, a `stop` event may follow
    last_event: float = 0.0  # the Engine's clock
    marks: dict[str, str] = {}  # mark of a container of ours (its ID where it has none) -> its ID, see ownership
    recreate: tuple[str, ...] = ()  # IDs of containers that `dom0 up --force-recreate` found and made obsolete


def cleared(memory: Memory) -> Memory:
    """`dom0 up` was called: what was stopped, given up or refused is tried again."""
    return replace(memory, stopped_by_person={}, crash_loops={}, crashes={}, refused={}, stop_expected={})


def backoff(count: int) -> float:
    """Seconds to wait before try `count + 1` after `count` failures."""
    return 0.0 if count <= 1 else min(BACKOFF_FIRST * 2.0 ** min(count - 2, DOUBLINGS), BACKOFF_MOST)


def recent(times: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Those of `times` within the crash window. One from the future was written before the clock was put right."""
    return tuple(time for time in times if now - CRASH_WINDOW < time < now + BACKOFF_MOST)


def still_lasts(until: float, now: float) -> bool:
    """Whether a pause holds that was to end at `until`: none is longer than BACKOFF_MOST, but the clock may go back."""
    return now < until <= now + BACKOFF_MOST
