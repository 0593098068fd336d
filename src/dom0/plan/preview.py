"""What `dom0 up` would change, as a list: the steps that the planner foretells, one row for each thing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, assert_never

import msgspec

from dom0.plan import steps
from dom0.plan.actual import Actual, slot_key
from dom0.plan.desired import Desired, Metrics, Sharing, Web
from dom0.plan.foretell import foretell
from dom0.plan.memory import Memory
from dom0.plan.snapshot import Snapshot

Action = Literal["build", "adopt", "pull", "create", "replace", "start", "restart", "update", "stop", "remove", "keep"]
Kind = Literal["image", "network", "volume", "container", "file", "serve", "peers", "metrics", "web", "notify"]
_WEIGHT: tuple[Action, ...] = ("update", "start", "restart", "remove", "replace", "create")  # the last one says it all


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
    return sorted(found.values(), key=lambda change: _place(change, ordered))


def preview_sharing(asked: Sharing, found: Sharing) -> Iterator[Change]:
    """What becomes of the other machines that are asked for images, and may ask."""
    if asked.peers != found.peers:
        name = ", ".join(asked.peers) or "none"
        yield Change(action="update", kind="peers", name=name, reason="x-dom0.pull.peers has changed")
    if found.listen and asked.listen != found.listen:
        yield Change(action="stop", kind="serve", name=found.listen, reason="x-dom0.pull.serve asks for it no longer")
    if asked.listen and asked.listen != found.listen:
        yield Change(action="start", kind="serve", name=asked.listen, reason="x-dom0.pull.serve asks for it")
    elif asked.listen and (asked.allow, asked.rate) != (found.allow, found.rate):
        yield Change(action="update", kind="serve", name=asked.listen, reason="who may ask, or how fast, has changed")


def preview_told(asked: Desired, found: Desired) -> Iterator[Change]:
    """What becomes of where the machine's numbers are told and its page is, and of whom it tells what goes wrong."""
    listeners: tuple[tuple[Kind, Metrics | Web | None, Metrics | Web | None, str], ...] = (
        ("metrics", asked.metrics, found.metrics, "who may ask has changed"),
        ("web", asked.web, found.web, "by which names it is reached has changed"),
    )
    for kind, wanted, there, change in listeners:
        moves = wanted is None or there is None or wanted.listen != there.listen
        if there and moves:
            yield Change(action="stop", kind=kind, name=there.listen, reason=f"x-dom0.{kind} asks for it no longer")
        if wanted and moves:
            yield Change(action="start", kind=kind, name=wanted.listen, reason=f"x-dom0.{kind} asks for it")
        elif wanted and wanted != there:
            yield Change(action="update", kind=kind, name=wanted.listen, reason=change)
    if asked.notify != found.notify:
        yield Change(action="update", kind="notify", name="x-dom0.notify", reason="who is told, and how, has changed")


def _place(change: Change, ordered: dict[str, int]) -> tuple[int, int]:
    if change.action in ("stop", "remove"):
        return 3, change.kind == "network"
    return (1, change.kind == "volume") if change.kind != "container" else (2, ordered[change.name])


def _changes(foretold: tuple[steps.AnyStep, ...], snapshot: Snapshot) -> Iterator[Change]:  # noqa: C901 -- flat matches
    replaced = {step.replaces for step in foretold if isinstance(step, steps.CreateContainer)}
    for step in foretold:
        action: Action
        kind: Kind = "container"
        match step:
            case steps.CreateNetwork():
                action, kind, name = "create", "network", step.spec.name
            case steps.CreateVolume():
                action, kind, name = "create", "volume", step.spec.name
            case steps.ReplaceNetwork():
                action, kind, name = "replace", "network", step.spec.name
            case steps.RemoveNetwork():
                action, kind, name = "remove", "network", step.name
            case steps.StopInScope():
                action, name = "stop", step.name
            case steps.CreateContainer():
                action, name = "replace" if step.replaces else "create", step.slot.name
            case steps.StopContainer():  # it goes, once what takes its place is ready
                continue
            case _:
                container = snapshot.by_id.get(step.container_id)
                if container is None or container.id in replaced:  # then it follows from what is above
                    continue
                slot = snapshot.slots.get(slot_key(container))
                name = slot.name if slot and snapshot.current(slot) == container else container.name
                match step:
                    case steps.StartContainer() | steps.RestartContainer():
                        action = "restart" if container.running else "start"
                    case steps.UnpauseContainer():
                        action = "start"
                    case steps.RemoveContainer():
                        action = "remove"
                    case steps.RunPostStart() | steps.RenameContainer() | steps.ConnectNetwork():
                        action = "update"
                    case steps.UpdateContainer() | steps.GiveUpContainer():
                        action = "update"
                    case _:
                        assert_never(step)
        yield Change(action=action, kind=kind, name=name, reason=step.reason)
