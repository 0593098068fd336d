"""Which generation `dom0 rollback` goes to, and whether it still can."""

from __future__ import annotations

from dom0.agent.generations import Generation, Generations
from dom0.engine.protocol import Engine
from dom0.errors import NotFound, UsageError


async def find_target(
    engine: Engine, generations: Generations, current: Generation | None, number: int | None
) -> Generation:
    """`number` None: the last good one before the current one. Raises UsageError, Damaged, EngineError."""
    if current is None:
        raise UsageError("rollback: there is no generation yet", hint="dom0 status")
    project = current.desired.project
    if number is None:
        target = next((good for good in generations.good_of(project) if good.number < current.number), None)
        if target is None:
            raise UsageError("rollback: there is no good generation before this one", hint="dom0 history")
    else:
        target = generations.read(number)
    if target.foreign:
        raise UsageError(
            f"rollback: generation {number} is what docker compose ran, whose containers were taken over",
            hint="give the project back: dom0 down, then docker compose up",
        )
    if target.number == current.number:
        raise UsageError(f"rollback: generation {number} is the current one", hint="dom0 history")
    if target.desired.project != project:
        raise UsageError(
            f"rollback: generation {number} is of the project {target.desired.project}, this machine is {project}",
            hint="take this one down first: dom0 down; then bring the other one up: dom0 up DIR",
        )
    for image_id, name in {slot.image_id: slot.image for slot in target.desired.slots}.items():
        try:
            await engine.image(image_id)
        except NotFound as error:
            raise UsageError(
                f"rollback: generation {target.number} needs the image {name}, and its {image_id} is gone",
                hint="dom0 history shows the others; or load that image: docker load",
            ) from error
    return target
