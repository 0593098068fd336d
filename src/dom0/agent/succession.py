"""Which step comes next when one root container takes the place of another. Pure: all it knows is what was found.

    dom0 (old)                          dom0 (old), dom0-next        stop the old one
      └─ create dom0-next ───────────▶  dom0-previous, dom0-next     start the new one, ask whether it answers
                                        dom0-previous, dom0 (new)
             it answers: remove dom0-previous   ◀─┤
             it does not: the new one becomes dom0-failed (for its log), dom0-previous is dom0 again and started

Names and states are the memory: killed anywhere in between, the next run looks and goes on. A container that steps
aside loses its restart policy, so that no restart of the Engine starts a second dom0.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from dom0.agent.contract import RESTART
from dom0.engine.values import Container, State
from dom0.names import FAILED, ROOT

NEXT = "dom0-next"
PREVIOUS = "dom0-previous"
ASIDE = "dom0-aside-"  # and an ID: what the host's launcher finds under a name that it needs
NAMES = (ROOT, NEXT, PREVIOUS, FAILED)
NO_RESTART = "no"


class RootContainers(msgspec.Struct, frozen=True):
    current: Container | None = None
    next: Container | None = None
    previous: Container | None = None
    failed: Container | None = None


class StartResult(msgspec.Struct, frozen=True):
    """Whether the started container answered; `reason` says why not."""

    container_id: str
    good: bool
    reason: str = ""


class Result(StrEnum):
    DONE = "done"  # a root container of the wanted image runs and answers
    UNDONE = "undone"  # it did not answer; the one before it runs again
    FAILED = "failed"  # it did not answer, and there is none before it that does


class Create(msgspec.Struct, frozen=True):
    name: str


class Start(msgspec.Struct, frozen=True):
    """And see whether it answers."""

    container: Container


class Verify(msgspec.Struct, frozen=True):
    container: Container


class Stop(msgspec.Struct, frozen=True):
    container: Container


class Rename(msgspec.Struct, frozen=True):
    container: Container
    name: str


class SetRestart(msgspec.Struct, frozen=True):
    container: Container
    policy: str


class Remove(msgspec.Struct, frozen=True):
    container: Container


class End(msgspec.Struct, frozen=True):
    result: Result
    reason: str = ""


SuccessionStep = Create | Start | Verify | Stop | Rename | SetRestart | Remove | End


def decide(found: RootContainers, wanted: str, verdict: StartResult | None) -> SuccessionStep:
    """The next step towards a root container of the image ID `wanted`."""
    if found.current is None:
        return _fill(found, wanted)
    if verdict is not None and verdict.container_id != found.current.id:
        verdict = None
    if found.current.image_id == wanted:
        return _judge(found, found.current, verdict) or _tidy(found)
    if _is(found.failed, wanted):
        return _return_to(found, found.current, verdict)
    if found.previous is not None:  # an earlier change was cut off: first that one
        return _judge(found, found.current, verdict) or Remove(found.previous)
    return _replace(found, found.current, wanted)


def _fill(found: RootContainers, wanted: str) -> SuccessionStep:
    """No container has the name."""
    if found.next is not None and not _is(found.next, wanted):
        return Remove(found.next)
    if found.next is not None and not _is(found.failed, wanted):
        return Rename(found.next, ROOT)
    if found.previous is not None:
        return Rename(found.previous, ROOT)
    return Create(ROOT) if found.next is None else Rename(found.next, ROOT)


def _replace(found: RootContainers, current: Container, wanted: str) -> SuccessionStep:
    if found.next is None:
        return Create(NEXT)
    if not _is(found.next, wanted):
        return Remove(found.next)
    return _silence(current) or Rename(current, PREVIOUS)


def _silence(container: Container) -> SuccessionStep | None:
    if container.restart_policy != NO_RESTART:
        return SetRestart(container, NO_RESTART)
    return Stop(container) if container.running else None


def _judge(found: RootContainers, current: Container, verdict: StartResult | None) -> SuccessionStep | None:
    """None: it is good. Without one before it there is nothing to go back to, so it is left as it is."""
    if verdict is not None and verdict.good:
        return None
    # It was started once: a container that nobody stops is started again by the Engine.
    has_ended = current.state in (State.EXITED, State.DEAD) or bool(current.error)
    if found.previous is not None and (verdict is not None or has_ended):
        return _silence(current) or (Rename(current, FAILED) if found.failed is None else Remove(found.failed))
    if verdict is not None:
        return End(Result.FAILED, verdict.reason)
    return Verify(current) if current.running else Start(current)


def _return_to(found: RootContainers, current: Container, verdict: StartResult | None) -> SuccessionStep:
    if found.next is not None:
        return Remove(found.next)
    if current.restart_policy != RESTART:
        return SetRestart(current, RESTART)
    if verdict is not None and not verdict.good:
        return End(Result.FAILED, verdict.reason)
    return End(Result.UNDONE) if current.running else Start(current)


def _tidy(found: RootContainers) -> SuccessionStep:
    """The current one is good."""
    for left in (found.next, found.previous, found.failed):
        if left is not None:
            return Remove(left)
    if found.current is not None and found.current.restart_policy != RESTART:
        return SetRestart(found.current, RESTART)
    return End(Result.DONE)


def _is(container: Container | None, wanted: str) -> bool:
    return container is not None and container.image_id == wanted


def wanted_after_cut(found: RootContainers) -> str:
    """The image to settle on where it is not known what was wanted: what ran last, not what was about to replace it.

    Empty: nothing was interrupted.
    """
    if found.next is None and found.previous is None:
        return ""
    order = (found.current, found.previous, found.next)
    return next(container.image_id for container in order if container is not None)
