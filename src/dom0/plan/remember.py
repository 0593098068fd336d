"""What an event of the Engine means for the memory: who stopped what, what ended by itself. Pure.

The Engine does not say who asked. A `stop` of a container that is not in `stopped` (where the agent writes its own
stops before it makes them) was a person's. `docker stop` tells `kill`, then `stop` and `die` in either order,
`docker kill` tells `kill`, `die` (seen on Docker 26.1): after a signal that we did not send and that `docker stop`
could have, an end is taken for a crash only when no `stop` has followed within QUIET.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from msgspec.structs import replace

from dom0.engine.values import Container, Event, State
from dom0.plan.memory import CRASH_WINDOW, Memory, recent
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan
from dom0.plan.snapshot import version

T = TypeVar("T")

QUIET = 0.5  # seconds
SIGKILL = "9"  # `docker stop` never begins with it
SIGNAL_WINDOW = 60.0  # a `docker stop` with a long grace period: signal first, end later
AT_REST = (State.PAUSED, State.CREATED, State.EXITED, State.DEAD, State.REMOVING)
STOP_WINDOW = 600.0  # seconds: what still runs so long after a stop of ours was not stopped by it


def remember(memory: Memory, event: Event, *, stopping: Collection[str] = ()) -> Memory:
    """`event` must be one of our containers' (its attributes carry the container's labels).

    `stopping`: IDs of those that a step of ours is about to stop for good. One that the Engine's restart policy starts
    once more before that is still stopped by us.
    """
    if event.type != "container":
        return memory
    match event.action:
        case "kill" if event.id not in memory.stopped and event.attributes.get("signal") != SIGKILL:
            return replace(memory, signalled=memory.signalled | {event.id: event.time})
        case "die":
            return _ended(memory, event)
        case "stop":
            return _stopped(memory, event)
        case "pause":
            return replace(memory, stopped_by_person=memory.stopped_by_person | {event.id: event.time})
        case "start" | "unpause":
            forgotten = _forget(memory, event.id)
            return replace(forgotten, stopped=memory.stopped) if event.id in stopping else forgotten
        case "destroy":
            return replace(_forget(memory, event.id), crashes=without(memory.crashes, event.id))
    return memory


def _ended(memory: Memory, event: Event) -> Memory:
    memory = replace(memory, ended=memory.ended | {event.id: event.time})
    if event.id in memory.stopped or event.id in memory.stopped_by_person:
        return memory
    memory = count_crash(memory, event.id, event.time)
    if event.time - memory.signalled.get(event.id, 0.0) < SIGNAL_WINDOW:
        memory = replace(memory, stop_expected=memory.stop_expected | {event.id: event.time + QUIET})
    return memory


def _stopped(memory: Memory, event: Event) -> Memory:
    """A person did, unless we did: then a `die` that came just before was no crash."""
    if event.id in memory.stopped:
        return memory
    memory = replace(memory, stopped_by_person=memory.stopped_by_person | {event.id: event.time})
    crashes = memory.crashes.get(event.id, ())
    if crashes and memory.ended.get(event.id) == crashes[-1]:
        memory = replace(memory, crashes=memory.crashes | {event.id: crashes[:-1]})
    return memory


def _forget(memory: Memory, container_id: str) -> Memory:
    return replace(
        memory,
        ended=without(memory.ended, container_id),
        stopped_by_person=without(memory.stopped_by_person, container_id),
        stopped=without(memory.stopped, container_id),
        signalled=without(memory.signalled, container_id),
        stop_expected=without(memory.stop_expected, container_id),
        health_passed=without(memory.health_passed, container_id),
    )


def without(mapping: dict[str, T], key: str) -> dict[str, T]:
    return {k: v for k, v in mapping.items() if k != key} if key in mapping else mapping


def count_crash(memory: Memory, container_id: str, when: float) -> Memory:
    """Counted once, also if its event comes twice."""
    crashes = tuple(time for time in recent(memory.crashes.get(container_id, ()), when) if time != when)
    return replace(memory, crashes=memory.crashes | {container_id: (*crashes, when)})


def remember_plan(
    memory: Memory, plan: Plan, containers: Iterable[Container], *, busy: Collection[str], now: float
) -> Memory:
    """Write down what the next agent could not find out from the Engine alone, and forget what is gone.

    `containers` are all of ours; `busy`: IDs of those that a step of ours is about to stop.
    """
    present = {container.id: container for container in containers}
    stopped = {
        id_: when
        for id_, when in memory.stopped.items()
        if id_ in present and (id_ in busy or _may_stand(present[id_], when, now))
    }
    return replace(
        memory,
        completed=memory.completed | {p.slot.key: version(p.slot) for p in plan.slots if p.phase is Phase.COMPLETED},
        crash_loops={p.slot.key: version(p.slot) for p in plan.slots if p.phase is Phase.CRASH_LOOP},
        running=tuple(sorted(container.id for container in present.values() if container.running)),
        stopped=stopped,
        stopped_by_person={
            id_: t for id_, t in memory.stopped_by_person.items() if id_ in present and _may_stand(present[id_], t, now)
        },
        ended=_only(memory.ended, present),
        crashes=_only(memory.crashes, present),
        health_passed=_only(memory.health_passed, present),
        post_started=_only(memory.post_started, present),
        signalled=_only(memory.signalled, present),
        stop_expected=_only(memory.stop_expected, present),
        recreate=tuple(id_ for id_ in memory.recreate if id_ in present),
        refused={lock: refusal for lock, refusal in memory.refused.items() if now - refusal.retry_at < CRASH_WINDOW},
    )


def _may_stand(container: Container, stopped: float, now: float) -> bool:
    """Whether it is still stopped. That it runs does not deny it: the picture may be older than the event."""
    return container.state in AT_REST or (container.started <= stopped and 0 <= now - stopped < STOP_WINDOW)


def _only(mapping: dict[str, T], keys: Collection[str]) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key in keys}
