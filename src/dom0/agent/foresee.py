"""What `dom0 up` would do with an image, seen from outside of the agent and by the same code. Changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.current import says_the_same
from dom0.agent.generations import Generation, Generations
from dom0.agent.host import look_at_host
from dom0.agent.in_use import require_free
from dom0.agent.observe import Observer
from dom0.agent.others_data import require_no_data_of_others
from dom0.agent.ownership import Ownership, read_seal
from dom0.agent.source import Candidate
from dom0.agent.state_files import StateFiles
from dom0.compose.findings import UNKNOWN, Locations
from dom0.engine.protocol import Engine
from dom0.engine.values import State
from dom0.plan.adoption import carry_over
from dom0.plan.checks import check_runs
from dom0.plan.desired import Desired
from dom0.plan.hashing import BY_COMPOSE
from dom0.plan.host_checks import check_host
from dom0.plan.labels import HASH, PROJECT
from dom0.plan.memory import Memory, cleared
from dom0.plan.orchestrators import endings
from dom0.plan.ownership import Seal
from dom0.plan.preview import Change, preview, preview_sharing, preview_told

ENDS = "is no orchestrator any more; no other scope sees its data"


class Running(msgspec.Struct, frozen=True):
    """What the machine's agent knows. `root`: the host's root directory as we see it, None where we are elsewhere.

    `state`: the agent's directory, None where it cannot be read.
    """

    project: str = ""
    generation: Generation | None = None
    memory: Memory = Memory()
    seal: Seal = Seal()
    root: Path | None = None
    state: Path | None = None


def read_running(state: Path, root: Path | None) -> Running:
    """From the agent's directory `state`. Raises Damaged, PermissionError."""
    generation, _ = Generations(state).current()
    project = generation.desired.project if generation else ""
    return Running(project, generation, StateFiles(state).read_memory(), read_seal(state), root, state)


async def foresee(engine: Engine, candidate: Candidate, running: Running, now: float) -> list[Change]:
    """Raises ProjectError where `dom0 up` would refuse, EngineError."""
    current = running.generation
    desired = await refuse(engine, candidate.desired, running, candidate.locations)
    candidate = replace(candidate, desired=desired)
    ownership = Ownership(running.seal, save=lambda _seal: None)
    ownership.take_up(desired.project)
    observer = Observer(engine, ownership)
    observer.adopted = desired.adopted
    await observer.look()
    is_new = current is None or current.is_pending or not says_the_same(candidate, current)
    memory = replace(cleared(running.memory), pending=is_new, last_good={}, recreate=())
    actual = await observer.actual(desired)
    known = current.desired.adopted if current else {}
    kept = [
        Change(action="adopt", kind="container", name=one.name, reason="Docker Compose runs it as this project asks")
        for one in actual.containers
        if one.id in desired.adopted.keys() - known and not one.labels[HASH].startswith(BY_COMPOSE)
    ]
    stays = [
        Change(action="keep", kind="volume", name=volume, reason=f"{one.scope} {ENDS}")
        for one in endings(current.desired if current else Desired(project=""), desired, actual.volumes)
        for volume in one.volumes
    ]
    is_known = current is not None or not running.project  # not where its generation cannot be read
    before = current.desired if current else Desired(project="")
    settings = [*preview_sharing(desired.sharing, before.sharing), *preview_told(desired, before)] if is_known else []
    return [*kept, *preview(desired, actual, memory, now), *settings, *stays]


async def refuse(engine: Engine, desired: Desired, running: Running, locations: Locations = UNKNOWN) -> Desired:
    """Raises ProjectError for what a person's `dom0 up` is refused with, though the project is right by itself.

    Returns `desired` with what the machine has taken over.
    """
    check_runs(running.project, desired.project, locations)
    before = running.generation.desired if running.generation else None
    desired = carry_over(desired, before)
    if runs := before is not None and bool(before.slots):
        desired = replace(desired, adopted=before.adopted)
    await require_free(engine, desired, runs=runs)
    if running.state is not None:
        require_no_data_of_others(running.state, desired)
    if running.root is not None:
        cpus = (await engine.info()).cpus
        host = await asyncio.to_thread(look_at_host, desired, before, cpus=cpus, root=running.root)
        if host.listeners:
            ours = [  # that run, also those that no generation knows of any more
                await engine.container(row.id)
                for row in await engine.containers()
                if row.state is State.RUNNING
                if row.labels.get(PROJECT) == desired.project or row.id in desired.adopted
            ]
            host = replace(host, held=tuple(port for container in ours for port in container.ports))
        check_host(desired, before, host, locations)
    return desired
