"""What `dom0 up` would do with a project, seen from outside of the agent and by the same code. Changes nothing."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from dom0.agent.current import says_the_same
from dom0.agent.generations import Generations
from dom0.agent.in_use import find_others, require_free
from dom0.agent.notes import Notes
from dom0.agent.observe import Observer
from dom0.agent.ownership import Ownership, read_seal
from dom0.agent.source import Candidate
from dom0.engine.protocol import Engine
from dom0.plan.checks import check_running
from dom0.plan.memory import cleared
from dom0.plan.preview import Change, preview


async def foresee(engine: Engine, candidate: Candidate, state: Path, now: float) -> list[Change]:
    """`state` is the agent's directory. Raises ProjectError where `dom0 up` would refuse, EngineError."""
    current, _ = Generations(state).current()
    if current is not None:
        check_running(candidate.desired.project, current.desired.project)
    require_free(candidate.desired, await find_others(engine, candidate.desired.project))
    observer = Observer(engine, Ownership(candidate.desired.project, read_seal(state)))
    await observer.look()
    actual = await observer.actual(candidate.desired)
    is_new = current is None or current.is_pending or not says_the_same(candidate, current)
    memory = replace(cleared(Notes(state).read_memory()), pending=is_new, kept={}, recreate=())
    return preview(candidate.desired, actual, memory, now)
