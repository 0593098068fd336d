"""What `dom0 up` would change, as a list: the planner asked about every service as if all others were ready. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec.structs import replace

from dom0.engine.values import Network, Volume
from dom0.plan.actual import Actual
from dom0.plan.container_plan import SlotPlan
from dom0.plan.desired import Desired, Slot
from dom0.plan.memory import Memory
from dom0.plan.planner import make_plan
from dom0.plan.scene import Scene
from dom0.plan.steps import CreateContainer, CreateNetwork, CreateVolume, ReplaceNetwork

Action = Literal["build", "create", "replace", "start", "restart", "update", "remove"]
Kind = Literal["image", "network", "volume", "container"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    action: Action
    kind: Kind
    name: str
    reason: str


def preview(desired: Desired, actual: Actual, memory: Memory, now: float) -> list[Change]:
    """The changes in the order of their kinds: networks and volumes, containers, what nobody asks for any more."""
    ground = list(_ground(desired, actual, memory, now))
    scene = Scene(desired, actual, memory, now)
    return [*ground, *_containers(scene, _alone(desired, actual, memory, now)), *_leftovers(scene)]


def _ground(desired: Desired, actual: Actual, memory: Memory, now: float) -> Iterator[Change]:
    for step in make_plan(desired, actual, memory, now).steps:
        match step:
            case CreateNetwork():
                yield Change(action="create", kind="network", name=step.spec.name, reason=step.reason)
            case ReplaceNetwork():
                yield Change(action="replace", kind="network", name=step.spec.name, reason=step.reason)
            case CreateVolume():
                yield Change(action="create", kind="volume", name=step.spec.name, reason=step.reason)


def _alone(desired: Desired, actual: Actual, memory: Memory, now: float) -> dict[str, SlotPlan]:
    """The plan of every slot by its key, were all it waits for there."""
    networks = {network.name for network in actual.networks}
    volumes = {volume.name for volume in actual.volumes}
    complete = replace(
        actual,
        networks=(*actual.networks, *(_network(one.name) for one in desired.networks if one.name not in networks)),
        volumes=(*actual.volumes, *(_volume(one.name) for one in desired.volumes if one.name not in volumes)),
    )
    free = replace(desired, slots=tuple(replace(slot, depends_on=(), parents=()) for slot in desired.slots))
    return {plan.slot.key: plan for plan in make_plan(free, complete, memory, now).slots}


def _network(name: str) -> Network:
    return Network(id=f"({name} comes)", name=name, driver="", labels={})


def _volume(name: str) -> Volume:
    return Volume(name=name, driver="", labels={})


def _containers(scene: Scene, plans: dict[str, SlotPlan]) -> Iterator[Change]:
    renewed: set[str] = set()  # services whose containers are replaced
    for slot in scene.ordered:
        change = _own_change(slot, plans[slot.key], scene) or _following(slot, renewed)
        if change is None:
            continue
        if change.action == "replace":
            renewed.add(slot.service)
        yield change


def _own_change(slot: Slot, plan: SlotPlan, scene: Scene) -> Change | None:
    if not plan.steps:
        return None
    step = plan.steps[0]
    action: Action = "update"
    if isinstance(step, CreateContainer):
        action = "replace" if scene.obsolete(slot) else "create"
    elif not any(container.running for container in scene.containers_of.get(slot.key, ())):
        action = "start"
    return Change(action=action, kind="container", name=slot.name, reason=step.reason)


def _following(slot: Slot, renewed: set[str]) -> Change | None:
    """What happens to it because of others."""
    for parent in slot.parents:
        if parent in renewed:
            reason = f"it shares a namespace with {parent}, which is replaced"
            return Change(action="replace", kind="container", name=slot.name, reason=reason)
    for dependency in slot.depends_on:
        if dependency.restart and dependency.service in renewed:
            return Change(
                action="restart", kind="container", name=slot.name, reason=f"{dependency.service} is replaced"
            )
    return None


def _leftovers(scene: Scene) -> Iterator[Change]:
    reason = "nothing asks for it"
    for container in scene.orphans:
        yield Change(action="remove", kind="container", name=container.name, reason=reason)
    wanted = {network.name for network in scene.desired.networks}
    for network in scene.actual.networks:
        if network.id in scene.actual.own_networks and network.name not in wanted:
            yield Change(action="remove", kind="network", name=network.name, reason=reason)
