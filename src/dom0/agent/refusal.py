"""What the Engine's refusal of a step means to a person: a problem code and what to do. Pure."""

from __future__ import annotations

from dom0.errors import Conflict, EngineError, NotFound
from dom0.plan.memory import NO_VERSION, Refusal, backoff
from dom0.plan.scene import version
from dom0.plan.steps import AnyStep, CreateContainer, RenameContainer, RestartContainer, StartContainer

# Words of the Engine's messages (moby, seen on 20.10 to 26.1) -> problem code, what to do about it
KNOWN: tuple[tuple[str, str, str], ...] = (
    ("port is already allocated", "port-taken", "another container holds that port: docker ps --filter publish=PORT"),
    ("address already in use", "port-taken", "another program holds that port: ss -ltnup"),
    ("no space left on device", "disk-full", "free space: docker system df, then docker image prune"),
    ("no such image", "image-missing", "dom0 build, or load the image, then dom0 up"),
    ("bind source path does not exist", "path-missing", "create the path, or correct it in the Compose file"),
    ("pool overlaps", "subnet-taken", "choose another subnet, or remove the network that has it: docker network ls"),
)


def refusal_of(step: AnyStep, error: EngineError, before: Refusal | None, now: float) -> Refusal:
    slot = step.slot if isinstance(step, CreateContainer | StartContainer | RestartContainer) else None
    of = version(slot) if slot else NO_VERSION
    code, hint = classify(step, error)
    count = before.count + 1 if before is not None and before.version == of else 1
    return Refusal(
        version=of,
        subject=slot.key if slot else step.lock,
        message=f"{slot.service if slot else step.lock}: {error.message}",
        code=code,
        hint=hint,
        count=count,
        retry_at=now + max(backoff(count + 1), 1.0),
    )


def classify(step: AnyStep, error: EngineError) -> tuple[str, str]:
    """Problem code and hint."""
    words = error.message.lower()
    for phrase, code, hint in KNOWN:
        if phrase in words:
            return code, hint
    if isinstance(error, NotFound) and isinstance(step, CreateContainer):
        return "image-missing", "dom0 build, or load the image, then dom0 up"
    if isinstance(error, Conflict) and isinstance(step, CreateContainer | RenameContainer):
        return "name-taken", "rename or remove the container that has this name: docker ps -a"
    return "engine-refused", error.hint or "the Engine's log has more: journalctl -u docker"
