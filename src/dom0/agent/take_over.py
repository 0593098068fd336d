"""With consent (`--adopt`): what Docker Compose made for a project becomes the machine's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from dom0.agent.generations import Generations
from dom0.agent.in_place import keep_in_place
from dom0.agent.in_use import find_adoptable
from dom0.agent.source import Candidate
from dom0.engine.protocol import Engine
from dom0.errors import InUse
from dom0.plan.adoption import adopt, as_it_was, project_directories
from dom0.plan.desired import Desired


async def take_over(
    engine: Engine, candidate: Candidate, state: Path, resolve: Callable[[], Awaitable[Candidate]]
) -> tuple[Candidate, Desired | None]:
    """The candidate with what it takes over, and how that was before; None if there is nothing.

    Relative paths mean what they meant for Compose from now on, so the project is read once more. Raises InUse.
    """
    theirs, project = await find_adoptable(engine, candidate.desired), candidate.desired.project
    if not theirs:
        return candidate, None
    directories = list(project_directories(theirs))  # where Compose read the project
    if len(directories) != 1:
        raise InUse(
            f"{project}: docker compose made its containers from {' and '.join(directories) or 'no directory'}",
            hint=f"end it: docker compose -p {project} down",
        )
    keep_in_place(state, project, directories[0])
    candidate = await resolve()
    desired = adopt(candidate.desired, theirs)
    return replace(candidate, desired=desired), as_it_was(desired, theirs)


def adopted_before(state: Path, project: str) -> dict[str, dict[str, str]]:
    """What the machine took over, by what the agent wrote in `state`; nothing where we may not read it."""
    try:
        current, _ = Generations(state).current()
    except OSError:
        return {}
    return current.desired.adopted if current is not None and current.desired.project == project else {}
