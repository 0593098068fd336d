"""Before a project becomes the machine: whether something that dom0 did not make has what it needs."""

from __future__ import annotations

from dom0.engine.protocol import Engine
from dom0.engine.values import ContainerSummary
from dom0.errors import InUse
from dom0.plan.desired import Desired
from dom0.plan.ownership import is_claimed
from dom0.plan.writers import compose_containers, in_use_problem, other_writers


async def find_others(engine: Engine, project: str) -> tuple[ContainerSummary, ...]:
    """All containers that do not even say that they are ours."""
    return tuple(row for row in await engine.containers() if not is_claimed(row.labels, project))


def require_free(desired: Desired, others: tuple[ContainerSummary, ...]) -> None:
    """Raises InUse."""
    if of_compose := compose_containers(desired, others):
        names = ", ".join(sorted(other.name for other in of_compose))
        raise InUse(
            f"{desired.project}: is a project of docker compose on this machine, with the containers {names}",
            hint=f"end it: docker compose -p {desired.project} down",
        )
    found = [(slot, other_writers(desired, slot, others)) for slot in desired.slots]
    problems = [in_use_problem(slot, writers) for slot, writers in found if writers]
    if problems:
        raise InUse("\n".join(one.title for one in problems), hint="\n".join(one.hint for one in problems))
