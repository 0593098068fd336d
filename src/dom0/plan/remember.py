"""What an event of the Engine means for the memory: who stopped what, what ended by itself. Pure.

The Engine does not say who asked. A `stop` of a container that is not in `stopped` (where the agent writes its own
stops before it makes them) was a person's. `docker stop` tells `kill`, then `stop` and `die` in either order,
`docker kill` tells `kill`, `die` (seen on Docker 26.1): after a signal that we did not send and that `docker stop`
could have, an end is taken for a crash only when no `stop` has followed within QUIET.
"""

from __future__ import annotations

from msgspec.structs import replace

from dom0.engine.values import Event
from dom0.plan import labels
from dom0.plan.memory import Memory, recent

QUIET = 0.5  # seconds
SIGKILL = "9"  # `docker stop` never begins with it
SIGNAL_WINDOW = 60.0  # a `docker stop` with a long grace period: signal first, end later


def remember(memory: Memory, event: Event) -> Memory:
    """`event` must be one of our containers' (its attributes carry the container's labels)."""
    if event.type != "container":
        return memory
    match event.action:
        case "kill":
            return _signalled(memory, event)
        case "die":
            return _ended(memory, event)
        case "stop":
            return _stopped(memory, event)
        case "start" | "unpause":
            return _forget(memory, event.id)
        case "destroy":
            return _forget(_uncount(memory, event), event.id)
    return memory


def _signalled(memory: Memory, event: Event) -> Memory:
    if event.id in memory.stopped or event.attributes.get("signal") == SIGKILL:
        return memory
    return replace(memory, signalled=memory.signalled | {event.id: event.time})


def _ended(memory: Memory, event: Event) -> Memory:
    memory = replace(memory, ended=memory.ended | {event.id: event.time})
    if event.id in memory.stopped or event.id in memory.held:
        return memory
    key = slot_key_of(event)
    crashes = (*recent(memory.crashes.get(key, ()), event.time), event.time)
    memory = replace(memory, crashes=memory.crashes | {key: crashes})
    if event.time - memory.signalled.get(event.id, 0.0) < SIGNAL_WINDOW:
        memory = replace(memory, quiet=memory.quiet | {event.id: event.time + QUIET})
    return memory


def _stopped(memory: Memory, event: Event) -> Memory:
    if event.id in memory.stopped:
        return memory
    return _uncount(replace(memory, held=memory.held | {event.id: event.time}), event)


def _uncount(memory: Memory, event: Event) -> Memory:
    """A person ended it: the `die` just before, if it came before, was no crash."""
    key = slot_key_of(event)
    crashes = memory.crashes.get(key, ())
    if not crashes or memory.ended.get(event.id) != crashes[-1]:
        return memory
    return replace(memory, crashes=memory.crashes | {key: crashes[:-1]})


def _forget(memory: Memory, container_id: str) -> Memory:
    return replace(
        memory,
        ended=without(memory.ended, container_id),
        held=without(memory.held, container_id),
        stopped=without(memory.stopped, container_id),
        signalled=without(memory.signalled, container_id),
        quiet=without(memory.quiet, container_id),
        gated=without(memory.gated, container_id),
    )


def without(mapping: dict[str, float], key: str) -> dict[str, float]:
    return {k: v for k, v in mapping.items() if k != key} if key in mapping else mapping


def slot_key_of(event: Event) -> str:
    return f"{event.attributes.get(labels.SERVICE, '')}-{event.attributes.get(labels.NUMBER, '')}"
