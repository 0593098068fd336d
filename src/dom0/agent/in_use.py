"""Before a project becomes the machine: whether something that dom0 did not make has what it needs."""

from __future__ import annotations

from dom0.engine.protocol import Engine, find_containers
from dom0.engine.values import Container, ContainerSummary
from dom0.errors import InUse
from dom0.plan import labels
from dom0.plan.desired import Desired
from dom0.plan.ownership import is_claimed
from dom0.plan.writers import compose_containers, in_use_problem, is_made_by_compose, other_writers


async def find_others(engine: Engine, desired: Desired) -> tuple[ContainerSummary, ...]:
    """All containers that do not even say that they are ours, and were not taken over."""
    rows = await engine.containers()
    return tuple(row for row in rows if not is_claimed(row.labels, desired.project) and row.id not in desired.adopted)


async def find_adoptable(engine: Engine, desired: Desired) -> tuple[Container, ...]:
    """What Compose made for the services of `desired`, but not what `docker compose run` did."""
    services = {slot.service for slot in desired.slots}
    meant = [
        row.id
        for row in await find_others(engine, desired)
        if is_made_by_compose(desired, row)
        and row.labels.get(labels.COMPOSE_ONEOFF) != "True"
        and row.labels[labels.COMPOSE_SERVICE] in services
    ]
    return await find_containers(engine, meant)


async def require_free(engine: Engine, desired: Desired, *, runs: bool = False) -> None:
    """Raises InUse. `runs`: the machine runs this project already, and takes over no more of it."""
    others = await find_others(engine, desired)
    if of_compose := compose_containers(desired, others):
        names = sorted(other.name for other in of_compose)
        listed = ", ".join(names)
        if runs:  # Compose's `down` would end ours too: they carry its labels
            raise InUse(
                f"{desired.project}: docker compose runs containers of it beside those of dom0: {listed}",
                hint=f"dom0 makes its own in their place, their volumes stay: docker rm -f {' '.join(names)}",
            )
        raise InUse(
            f"{desired.project}: is a project of docker compose on this machine, with the containers {listed}",
            hint=f"take it over: dom0 up --adopt; or end it: docker compose -p {desired.project} down",
        )
    found = [(slot, other_writers(desired, slot, others)) for slot in desired.slots]
    problems = [in_use_problem(slot, writers) for slot, writers in found if writers]
    if problems:
        raise InUse("\n".join(one.title for one in problems), hint="\n".join(one.hint for one in problems))
