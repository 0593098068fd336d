"""What the status document says: of one of the plan's slots, and of what has changed in it. Pure."""

from __future__ import annotations

from dom0.agent.status import ServiceStatus, Status
from dom0.plan.container_plan import SlotPlan


def service_status(plan: SlotPlan) -> ServiceStatus:
    container = plan.container
    return ServiceStatus(
        service=plan.slot.service,
        number=plan.slot.number,
        container=container.name if container else "",
        container_id=container.id if container else "",
        image=plan.slot.image,
        image_id=container.image_id if container else plan.slot.image_id,
        phase=plan.phase,
        reason=plan.reason,
        health=container.health if container else "none",
        started=container.started if container else 0.0,
        finished=container.finished if container and not container.running else 0.0,
        next_run=plan.next_run,
        restarts=container.restart_count if container else 0,
        ports=tuple(f"{f'{port.ip}:' if port.ip else ''}{port.port}/{port.protocol}" for port in plan.slot.ports),
    )


def difference(before: Status, after: Status) -> Status | dict[str, object]:
    """The fields that are another, and `now`; of `services` those that are. All of it where others are listed there."""
    if before.project != after.project or list(map(_slot, before.services)) != list(map(_slot, after.services)):
        return after
    fields = {name: getattr(after, name) for name in Status.__struct_fields__}
    changed: dict[str, object] = {name: said for name, said in fields.items() if said != getattr(before, name)}
    services = tuple(new for old, new in zip(before.services, after.services, strict=True) if new != old)
    return changed | ({"services": services} if services else {})


def _slot(service: ServiceStatus) -> tuple[str, int]:
    return (service.service, service.number)
