"""What stands in the way of a step, as a code and what to do: the Engine refuses it, or it has no effect. Pure."""

from __future__ import annotations

import re

from dom0.errors import Conflict, EngineError, NotFound
from dom0.plan.memory import NO_VERSION, RefusedStep, SlotVersion, backoff
from dom0.plan.snapshot import version
from dom0.plan.steps import (
    MISSING,
    REMOVED,
    AnyStep,
    CreateContainer,
    RenameContainer,
    RestartContainer,
    RunPostStart,
    StartContainer,
)
from dom0.plan.text import say_step

ALLOCATED = "port is already allocated"  # by the Engine itself, which does not ask the host first
KEPT = "no running container has port {port}: the Engine was cut off and keeps it for nobody, until it is restarted"
# Words of the Engine's messages (moby, seen on 20.10 to 26.1) -> problem code, what to do about it
KNOWN: tuple[tuple[str, str, str], ...] = (
    (ALLOCATED, "port-taken", "another container holds that port: docker ps --filter publish={port}"),
    ("address already in use", "port-taken", "another program holds that port: ss -ltnup"),
    ("no space left on device", "disk-full", "free space: docker system df, then docker image prune"),
    ("no such image", "image-missing", "dom0 build, or load the image, then dom0 up"),
    ("bind source path does not exist", "path-missing", "create the path, or correct it in the Compose file"),
    ("pool overlaps", "subnet-taken", "choose another subnet, or remove the network that has it: docker network ls"),
)


_CONTAINER = re.compile(r"^container [0-9a-f]{12}: ")  # its service is named instead
_PORT = re.compile(r":(\d+) failed")


def refusal_of(
    step: AnyStep, error: EngineError, before: RefusedStep | None, now: float, *, published: frozenset[int] | None
) -> RefusedStep:
    """`published`: host ports of containers that run, None where that is not known."""
    of, subject, name = _about(step)
    code, hint = classify(step, error, published)
    count = before.count + 1 if before is not None and before.version == of else 1
    return RefusedStep(
        version=of,
        subject=subject,
        message=f"{name}: {_CONTAINER.sub('', error.message)}",
        code=code,
        hint=hint,
        count=count,
        retry_at=now + max(backoff(count + 1), 1.0),
    )


MANY = 5  # times in a row before what has no effect waits
IN_A_ROW = 120.0  # seconds at most between two of them


class Repeats:
    """Counts how often the same is done in a row although it succeeds.

    Starts have a budget of their own, and what was removed may be created as often as it is removed.
    """

    def __init__(self) -> None:
        self._done: dict[tuple[str, str, str], tuple[float, int]] = {}  # lock, kind and reason -> when, times

    def note(self, step: AnyStep, monotonic: float, now: float) -> RefusedStep | None:
        """`step` was done. If that was too often in a row, it waits when it is asked for again, longer each time."""
        if isinstance(step, StartContainer | RestartContainer | RunPostStart) or step.reason in (MISSING, REMOVED):
            return None
        self._done = {key: done for key, done in self._done.items() if monotonic - done[0] < IN_A_ROW}
        what = (step.lock, type(step).__name__, step.reason)
        times = self._done.get(what, (monotonic, 0))[1] + 1
        self._done[what] = (monotonic, times)
        if times < MANY:
            return None
        of, subject, name = _about(step)
        code = "no-effect"
        return RefusedStep(
            version=of,
            subject=subject,
            message=f"{name}: {say_step(step)} was done {times} times, and changes nothing ({step.reason})",
            code=code,
            hint="something undoes it, or the Engine means something else by it: dom0 logs, docker events",
            count=times - MANY + 1,
            retry_at=now + backoff(times - MANY + 2),
        )


def _about(step: AnyStep) -> tuple[SlotVersion, str, str]:
    """Which configuration it is for, the subject of a problem with it, and the name that people know."""
    if isinstance(step, CreateContainer | StartContainer | RestartContainer):
        return version(step.slot), step.slot.key, step.slot.service
    if isinstance(step, RunPostStart):  # whose lock is of one version
        return NO_VERSION, step.slot.key, step.slot.service
    return NO_VERSION, step.lock, step.lock


def classify(step: AnyStep, error: EngineError, published: frozenset[int] | None) -> tuple[str, str]:
    """Problem code and hint."""
    if isinstance(step, RunPostStart):
        return "post-start-failed", f"correct it and run dom0 up; what the service says: dom0 logs {step.slot.service}"
    words = error.message.lower()
    for phrase, code, hint in KNOWN:
        if phrase in words:
            port = _PORT.search(words)
            is_kept = phrase == ALLOCATED and port and published is not None and int(port[1]) not in published
            return code, (KEPT if is_kept else hint).replace("{port}", port[1] if port else "PORT")
    if isinstance(error, NotFound) and isinstance(step, CreateContainer):
        return "image-missing", "dom0 build, or load the image, then dom0 up"
    if isinstance(error, Conflict) and isinstance(step, CreateContainer | RenameContainer):
        return "name-taken", "rename or remove the container that has this name: docker ps -a"
    return "engine-refused", error.hint or "the Engine's log has more: journalctl -u docker"
