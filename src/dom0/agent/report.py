"""One of the plan's slots as a row of the status document. Pure."""

from __future__ import annotations

from dom0.agent.status import ServiceStatus
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
