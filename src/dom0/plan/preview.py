"""What `dom0 up` would change, as a list: the steps that the planner foretells, one row for each thing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, assert_never

import msgspec

from dom0.engine.values import Container
from dom0.plan.actual import Actual, slot_key
from dom0.plan.desired import Desired
from dom0.plan.foretell import foretell
from dom0.plan.memory import Memory
from dom0.plan.snapshot import Snapshot
from dom0.plan.steps import (
    AnyStep,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    GiveUpContainer,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    ReplaceNetwork,
    RestartContainer,
    RunPostStart,
    StartContainer,
    StopContainer,
    StopInScope,
    UnpauseContainer,
    UpdateContainer,
)

Action = Literal["build", "adopt", "pull", "create", "replace", "start", "restart", "update", "stop", "remove", "keep"]
Kind = Literal["image", "network", "volume", "container", "file"]
_WEIGHT: tuple[Action, ...] = ("update", "start", "restart", "remove", "replace", "create")  # the last one says it all
_OfContainer: TypeAlias = (
    StartContainer
    | RunPostStart
    | RestartContainer
    | UnpauseContainer
    | StopContainer
    | GiveUpContainer
    | RemoveContainer
    | RenameContainer
    | ConnectNetwork
    | UpdateContainer
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    action: Action
    kind: Kind
    name: str
    reason: str


def preview(desired: Desired, actual: Actual, memory: Memory, now: float) -> list[Change]:
    """The changes in the order of their kinds: networks and volumes, containers, then what is removed.

    `memory` as the agent will have it at the beginning.
    """
    snapshot = Snapshot(desired, actual, memory, now)
    found: dict[tuple[Kind, str], Change] = {}
    for change in _changes(foretell(desired, actual, memory, now), snapshot):
        known = found.get((change.kind, change.name))
        if known is None or _WEIGHT.index(change.action) > _WEIGHT.index(known.action):
            found[change.kind, change.name] = change
    ordered = {slot.name: number for number, slot in enumerate(snapshot.ordered)}

    def place(change: Change) -> tuple[int, int]:
        if change.action in ("stop", "remove"):
            return 3, change.kind == "network"
        return (1, change.kind == "volume") if change.kind != "container" else (2, ordered[change.name])

    return sorted(found.values(), key=place)


def _changes(steps: tuple[AnyStep, ...], snapshot: Snapshot) -> Iterator[Change]:
    replaced = {step.replaces for step in steps if isinstance(step, CreateContainer)}
    for step in steps:
        match step:
            case CreateNetwork():
                yield Change(action="create", kind="network", name=step.spec.name, reason=step.reason)
            case CreateVolume():
                yield Change(action="create", kind="volume", name=step.spec.name, reason=step.reason)
            case ReplaceNetwork():
                yield Change(action="replace", kind="network", name=step.spec.name, reason=step.reason)
            case RemoveNetwork():
                yield Change(action="remove", kind="network", name=step.name, reason=step.reason)
            case StopInScope():
                yield Change(action="stop", kind="container", name=step.name, reason=step.reason)
            case CreateContainer():
                action: Action = "replace" if step.replaces else "create"
                yield Change(action=action, kind="container", name=step.slot.name, reason=step.reason)
            case _:
                container = snapshot.by_id.get(step.container_id)
                if container is not None and container.id not in replaced:  # else it follows from what is above
                    yield from _of_container(step, container, snapshot)


def _of_container(step: _OfContainer, container: Container, snapshot: Snapshot) -> Iterator[Change]:
    slot = snapshot.slots.get(slot_key(container))
    name = slot.name if slot and snapshot.current(slot) == container else container.name
    match step:
        case StartContainer() | RestartContainer():
            action: Action = "restart" if container.running else "start"
            yield Change(action=action, kind="container", name=name, reason=step.reason)
        case UnpauseContainer():
            yield Change(action="start", kind="container", name=name, reason=step.reason)
        case RemoveContainer():
            yield Change(action="remove", kind="container", name=name, reason=step.reason)
        case RunPostStart() | RenameContainer() | ConnectNetwork() | UpdateContainer() | GiveUpContainer():
            yield Change(action="update", kind="container", name=name, reason=step.reason)
        case StopContainer():  # it goes, once what takes its place is ready
            pass
        case _:
            assert_never(step)
