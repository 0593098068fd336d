"""From desired, actual and memory to the next wave of steps. Pure: the same values always give the same plan.

Order of things: networks and volumes, then containers along their dependencies, then what the project no longer has.
Containers without fixed addresses are created while their networks are made, which takes about as long.
A plan is made for one look; after any of its steps the agent looks and plans again, so nothing here is a script.
"""

from __future__ import annotations

import msgspec

from dom0.engine.values import State
from dom0.health import Problem
from dom0.plan import labels
from dom0.plan.actual import Actual, depends_on
from dom0.plan.container_plan import ContainerPlanner, SlotPlan
from dom0.plan.desired import Desired
from dom0.plan.hooks import pre_stop_of
from dom0.plan.memory import NO_VERSION, Memory, RefusedStep, still_lasts
from dom0.plan.orchestrators import scope_of
from dom0.plan.phase import Phase
from dom0.plan.snapshot import Snapshot, version
from dom0.plan.steps import (
    MISSING,
    UNWANTED,
    AnyStep,
    CreateNetwork,
    CreateVolume,
    RemoveContainer,
    RemoveNetwork,
    ReplaceNetwork,
    StopContainer,
    StopInScope,
)
from dom0.socketproxy.scope import Scope

WELL = frozenset({Phase.READY, Phase.COMPLETED, Phase.SCHEDULED, Phase.STOPPED, Phase.DATA})
AT_REST = WELL | {Phase.CRASH_LOOP, Phase.WAITING}  # a container that waits only for these waits for a person
TIDYING = (RemoveNetwork, RemoveContainer)  # that the Engine refuses these hinders nothing that was asked for
GROUND_PRIORITY = 1_000_000  # networks and volumes hold everything else up


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`settled`: nothing to do. `well`: every service is ready, completed, or stopped by a person.

    `retry_at`: the earliest end of a back-off, seconds since the epoch (0: none). `next_run`: of the next job.
    `refused`: of the steps that something waits for, the one that the Engine has refused most often in a row.
    """

    steps: tuple[AnyStep, ...]
    slots: tuple[SlotPlan, ...]
    problems: tuple[Problem, ...]
    settled: bool
    well: bool
    retry_at: float = 0.0
    next_run: float = 0.0
    refused: RefusedStep | None = None


def make_plan(desired: Desired, actual: Actual, memory: Memory, now: float) -> Plan:
    snapshot = Snapshot(desired, actual, memory, now)
    ground, problems = _plan_ground(snapshot)
    slots = _plan_slots(snapshot)
    steps = [*ground, *(step for plan in slots for step in plan.steps)]
    well = all(plan.phase in WELL for plan in slots) and not problems
    steps += _plan_orphans(snapshot) if well else []
    steps += _plan_leftover_networks(snapshot)
    # lock -> the refusal for which its steps have to wait
    versions = {f"slot:{slot.key}": version(slot) for slot in desired.slots}
    refusals = {
        step.lock: refusal
        for step in steps
        if (refusal := memory.refused.get(step.lock)) is not None
        and still_lasts(refusal.retry_at, now)
        and refusal.version in (NO_VERSION, versions.get(step.lock))
    }
    # two slots may want the same blocker stopped
    unique = {(type(step), step.lock, getattr(step, "container_id", "")): step for step in steps}.values()
    ready = sorted((step for step in unique if step.lock not in refusals), key=lambda step: -step.priority)
    slots = tuple(_with_refusal(plan, memory.refused, refusals) for plan in slots)
    hindering = [step for step in steps if step.lock in refusals and not isinstance(step, TIDYING)]
    waits = [plan.retry_at for plan in slots if plan.retry_at] + [r.retry_at for r in refusals.values()]
    return Plan(
        steps=tuple(ready),
        slots=slots,
        problems=(
            *problems,
            *(p for plan in slots for p in plan.problems),
            *(Problem(code=r.code, subject=r.subject, title=r.message, hint=r.hint) for r in refusals.values()),
        ),
        settled=not ready and not hindering and all(plan.phase in AT_REST for plan in slots),
        well=well and not hindering,
        retry_at=min(waits, default=0.0),
        next_run=min((plan.next_run for plan in slots if plan.next_run), default=0.0),
        refused=max((refusals[step.lock] for step in hindering), key=lambda r: r.count, default=None),
    )


def _with_refusal(plan: SlotPlan, known: dict[str, RefusedStep], refusals: dict[str, RefusedStep]) -> SlotPlan:
    """While it waits nothing is done about it; while it is tried again, what was said last time is still why."""
    lock = f"slot:{plan.slot.key}"
    refusal = known.get(lock)
    if refusal is None or plan.phase in WELL:
        return plan
    if lock in refusals:
        return msgspec.structs.replace(plan, phase=Phase.FAILED, reason=refusal.message, refused=True, steps=())
    is_tried_again = plan.steps and refusal.version == version(plan.slot)
    return msgspec.structs.replace(plan, reason=refusal.message, refused=True) if is_tried_again else plan


def _plan_ground(snapshot: Snapshot) -> tuple[list[AnyStep], list[Problem]]:
    steps: list[AnyStep] = []
    missing: list[tuple[str, str]] = []  # external ones, with their kinds
    for network in snapshot.desired.networks:
        found = snapshot.networks.get(network.name)
        lock = f"network:{network.name}"
        if network.external:
            if found is None:
                missing.append(("network", network.name))
        elif found is None:
            steps.append(CreateNetwork(lock=lock, reason=MISSING, priority=GROUND_PRIORITY, spec=network))
        elif snapshot.is_outdated(network):
            step = ReplaceNetwork(
                lock=lock,
                reason="its configuration changed",
                priority=GROUND_PRIORITY,
                spec=network,
                network_id=found.id,
                attached=tuple(
                    container.id
                    for container in snapshot.actual.containers
                    if any(endpoint.network == found.name for endpoint in container.endpoints)
                ),
            )
            steps.append(step)
    for volume in snapshot.desired.volumes:
        if volume.name in snapshot.volume_names:
            continue
        if volume.external:
            missing.append(("volume", volume.name))
        else:
            lock = f"volume:{volume.name}"
            steps.append(CreateVolume(lock=lock, reason=MISSING, priority=GROUND_PRIORITY, spec=volume))
    problems = [
        Problem(
            code="external-missing",
            subject=name,
            title=f"the external {kind} {name} does not exist",
            hint=f"docker {kind} create {name}",
        )
        for kind, name in missing
    ]
    return steps, problems


def _plan_slots(snapshot: Snapshot) -> tuple[SlotPlan, ...]:
    """No step is taken for a container whose state is unknown."""
    plans: dict[str, SlotPlan] = {}
    for slot in snapshot.ordered:
        words = snapshot.actual.unreadable.get(slot.key)
        if words is None:
            plans[slot.key] = ContainerPlanner(snapshot, slot, plans).plan()
            continue
        problem = Problem(
            code="engine-refused",
            subject=slot.key,
            title=f"the Engine cannot describe the container of {slot.service}: {words}",
            hint=f"if it stays so, remove it: docker rm -f {slot.name}",
        )
        plans[slot.key] = SlotPlan(slot=slot, phase=Phase.FAILED, reason=problem.title, problems=(problem,))
    return tuple(plans[slot.key] for slot in snapshot.desired.slots)


def _plan_orphans(snapshot: Snapshot) -> list[AnyStep]:
    """Containers without a slot are removed once every slot is well: dependents before what they depend on.

    An orchestrator, and what has served its socket, go last of its scope: when it is not served any more and all that
    was started through it is stopped.
    """
    running = [container for container in snapshot.orphans if container.running]
    needed = {service for container in running for service in depends_on(container)}
    served = {scope_of(container) for container in running} - {""}
    steps: list[AnyStep] = []
    for container in snapshot.orphans:
        lock, scope = f"container:{container.id}", scope_of(container)
        if container.running:
            if container.labels.get(labels.SERVICE) not in needed:
                id_, name, pre_stop = container.id, container.name, pre_stop_of(container)
                steps.append(StopContainer(lock=lock, reason=UNWANTED, container_id=id_, name=name, pre_stop=pre_stop))
        elif snapshot.is_kept(container) or container.state is State.REMOVING or scope in served:
            continue
        elif scope and (left := _left_in_scope(scope, snapshot)):
            steps += left
        else:
            steps.append(RemoveContainer(lock=lock, reason=UNWANTED, container_id=container.id, name=container.name))
    return steps


def _plan_leftover_networks(snapshot: Snapshot) -> list[AnyStep]:
    """As soon as no container is in them."""
    wanted = {network.name for network in snapshot.desired.networks}
    used = {endpoint.network for container in snapshot.actual.containers for endpoint in container.endpoints}
    return [
        RemoveNetwork(lock=f"network:{network.name}", reason=UNWANTED, network_id=network.id, name=network.name)
        for network in snapshot.actual.networks
        if network.id in snapshot.actual.own_networks and network.name not in wanted | used
    ]


def _left_in_scope(name: str, snapshot: Snapshot) -> list[AnyStep]:
    """Stops of what an orchestrator of ours has started, itself or through orchestrators of its own, and still runs."""
    scope, reason = Scope(name), f"{name} is no orchestrator any more"
    return [
        StopInScope(lock=f"container:{row.id}", reason=reason, member_id=row.id, name=row.name)
        for row in snapshot.actual.others
        if row.running and scope.owns(row.name, row.labels)
    ]
