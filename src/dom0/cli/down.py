"""`dom0 down`: stop and remove everything that dom0 made here, but no data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dom0 import terminal
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.engine_client import on_engine
from dom0.cli.places import forget_agent_sockets, is_here
from dom0.errors import NotFound, UsageError
from dom0.names import HANDOVER, MEMORY_FILE, ROOT, STATE, state_directory
from dom0.plan import labels
from dom0.socketproxy.scope import ORCHESTRATOR, is_made_inside

if TYPE_CHECKING:
    from pathlib import Path

    from dom0.engine.protocol import Engine
    from dom0.engine.values import Event
    from dom0.errors import EngineError
    from dom0.plan.memory import Memory
    from dom0.plan.ownership import Seal
    from dom0.plan.planner import Plan
    from dom0.plan.preview import Change, Kind
    from dom0.plan.steps import AnyStep

STOP_GRACE = 20.0  # seconds for the agent to end
STEPS_PER_CORE = 2  # removals; the agent's limit is for creating and starting


@click.command(name="down")
@click.option("-p", "--project", metavar="NAME", help="Which one, where containers of several are left.")
@click.option(
    "-v",
    "--volumes",
    "doomed",
    metavar="NAME",
    multiple=True,
    is_flag=False,
    flag_value="",
    help="Delete this volume too, with its data.",
)
@click.option("--json", "as_json", is_flag=True, help="What was removed: a list of objects as of `dom0 plan`.")
def command(project: str | None, doomed: tuple[str, ...], as_json: bool) -> None:
    """Stop dom0, then stop and remove its containers and networks.

    Volumes and images stay: `dom0 up` goes on where it was. A volume is deleted only if it is named.

    $ dom0 down
    $ dom0 down --volumes mybox_redis-data
    """
    if "" in doomed:
        raise UsageError(
            "down: --volumes needs the name of a volume",
            hint="volumes are deleted by name only: docker volume ls; dom0 down --volumes NAME",
        )
    told = DownReport(as_json=as_json)
    on_engine(lambda engine: _bring_down(engine, project, doomed, told))
    if as_json:
        terminal.say_json(told.removals)


class DownReport:
    """What is done, as it is done for people, and in one document for programs. Listens to the loop."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.removals: list[Change] = []

    def say(self, text: str) -> None:
        if not (self._as_json or terminal.quiet()):
            terminal.say(text)

    def removed(self, kind: Kind, name: str, reason: str) -> None:
        from dom0.plan.preview import Change

        self.removals.append(Change(action="remove", kind=kind, name=name, reason=reason))

    def planned(self, _plan: Plan) -> float:
        return 0.0

    def trouble_changed(self) -> None:
        """`take_down` raises it."""

    def container_told(self, _event: Event, _memory: Memory) -> None:
        """We stop and remove them ourselves."""

    def step_ended(self, step: AnyStep, error: EngineError | None, seconds: float) -> None:
        from dom0.plan.steps import RemoveContainer, RemoveNetwork
        from dom0.plan.text import say_step

        self.say(f"{say_step(step)}: {error.message}" if error else f"{say_step(step)}  {seconds:.1f}s")
        if isinstance(step, RemoveContainer | RemoveNetwork) and error is None:
            self.removed("container" if isinstance(step, RemoveContainer) else "network", step.name, step.reason)


async def _bring_down(engine: Engine, name: str | None, doomed: Sequence[str], told: DownReport) -> None:
    project = name or await find_project(engine)
    if project is None and not doomed:
        _forget_machine()
        told.say("nothing of dom0 is here")
        return
    await _refuse(engine, doomed)
    seal, adopted = await _what_is_ours(engine, project or "")
    await _remove_agent(engine, told)
    if project is not None:
        from dom0.agent.reconcile import take_down
        from dom0.plan.desired import Desired

        limit = STEPS_PER_CORE * (await engine.info()).cpus
        await take_down(engine, Desired(project=project, adopted=adopted), told, limit=limit, seal=seal)
    _forget_machine()
    for volume in doomed:
        await engine.remove_volume(volume)
        told.say(f"delete volume {volume}")
        told.removed("volume", volume, "--volumes names it")
    stay = [volume.name for volume in await engine.volumes() if volume.labels.get(labels.PROJECT) == project]
    if project is not None and stay:
        told.say(f"volumes that stay: {', '.join(sorted(stay))}")


async def find_project(engine: Engine) -> str | None:
    """The project whose containers are here, None if there are none. Raises UsageError if there are several."""
    ours = await engine.containers(labels=[labels.PROJECT])
    found = sorted({name for one in ours if not is_made_inside(one.labels) and (name := one.labels[labels.PROJECT])})
    if len(found) > 1:
        raise UsageError(
            f"down: there are containers of {', '.join(found)}", hint="say which: dom0 down --project NAME"
        )
    return found[0] if found else None


async def _what_is_ours(engine: Engine, project: str) -> tuple[Seal, dict[str, dict[str, str]]]:
    """By the files of the machine's agent: the seal of its marks, and what it took over (as `adopted_before`).

    Those of another machine are copied out of a container of its root container's image that is never started. Where
    there is no root container, or without the right to read the files, the labels decide. Raises EngineError,
    Unreadable.
    """
    from dom0 import temporary
    from dom0.agent.ownership import read_seal
    from dom0.agent.store import Forbidden
    from dom0.agent.take_over import adopted_before
    from dom0.plan.ownership import Seal

    with contextlib.ExitStack() as stack:
        state = state_directory()
        if not is_here():
            state = stack.enter_context(temporary.directory("down"))
            with contextlib.suppress(NotFound):
                await _copy_state(engine, (await engine.container(ROOT)).image_id, state)
        try:
            seal = read_seal(state)
        except Forbidden:
            seal = Seal()
        return seal, adopted_before(state, project)


async def _copy_state(engine: Engine, image: str, into: Path) -> None:
    """What decides ownership.

    Not through the root container: some Engines copy nothing out of one with a mount below /var/run either
    (`DockerEngine.put_archive`).
    """
    from dom0.agent.ownership import FILE
    from dom0.agent.store import Damaged, read_json
    from dom0.engine.bodies import ContainerBody, HostConfig

    state = ContainerBody(image=image, labels=labels.NO_PART, host_config=HostConfig(binds=(f"{STATE}:{STATE}:ro",)))
    reader = await engine.create_container("", state)
    try:
        for name in (FILE, "current"):
            await _copy_file(engine, reader, name, into)
        with contextlib.suppress(Damaged):
            number = read_json(into / "current", int)
            await _copy_file(engine, reader, f"generations/{number}/generation.json", into)
    finally:
        await engine.remove_container(reader, force=True)


async def _copy_file(engine: Engine, reader: str, name: str, into: Path) -> None:
    """A file of the state directory that `reader` has mounted; nothing where it is not there."""
    import tarfile
    import tempfile

    from dom0.durable import write_atomic

    with contextlib.suppress(NotFound), tempfile.TemporaryFile(dir=into) as tar:
        await engine.get_archive(reader, f"{STATE}/{name}", tar)
        tar.seek(0)
        with tarfile.open(fileobj=tar) as archive:
            for entry in archive:
                if entry.isfile() and (file := archive.extractfile(entry)):
                    write_atomic(into / name, file.read(), durable=False)


async def _refuse(engine: Engine, doomed: Sequence[str]) -> None:
    """Before anything is changed. Raises NotFound for a volume that is not there, UsageError for one not of dom0, and
    in a scope: its dom0 would be started again.
    """
    known = {volume.name: volume for volume in await engine.volumes()}
    for name in doomed:
        if name not in known:
            raise NotFound(f"--volumes {name}: no such volume", hint="the volumes: docker volume ls")
        if labels.PROJECT not in known[name].labels:
            raise UsageError(f"--volumes {name}: dom0 did not make it", hint=f"delete it with: docker volume rm {name}")
    with contextlib.suppress(NotFound):
        if (await engine.container(ROOT)).labels.get(ORCHESTRATOR):
            raise UsageError(
                f"down: {ROOT} is a service of another machine, which would start it again",
                hint="that machine's owner takes it out of the project there; single services: dom0 stop NAME",
            )


async def _remove_agent(engine: Engine, told: DownReport) -> None:
    """First, because it would start again what is stopped; with what an unfinished hand-over left."""
    from dom0.agent.handover import remove_aside
    from dom0.agent.succession import NAMES
    from dom0.cli.succession import let_end
    from dom0.engine.protocol import find_container

    await let_end(engine, told.say)
    for name in (*NAMES, HANDOVER):
        container = await find_container(engine, name)
        if container is not None and container.labels.get(labels.ROLE) in ("root", "handover"):
            told.say(f"stop and remove {name}")
            await engine.stop_container(container.id, timeout=STOP_GRACE)
            await engine.remove_container(container.id, force=True)
            told.removed("container", name, "dom0 down")
    await remove_aside(engine)


def _forget_machine() -> None:
    """Delete what the agent remembers of containers, and which generation is current.

    The next `dom0 up` is a first start, of any project, and runs the jobs as Compose would. The generations stay.
    """
    if not is_here():
        return
    with contextlib.suppress(AgentUnreachable):
        Agent().status()
        return  # one on another Engine than the one that was named
    _note_down()
    for name in ("current", MEMORY_FILE):
        with contextlib.suppress(OSError):  # without permission, or on another host, it is only remembered longer
            (state_directory() / name).unlink()
    forget_agent_sockets()


def _note_down() -> None:
    """In the journal, which stays. Its agent has ended before it could know why."""
    import os
    import time

    from dom0.agent.events import Kind
    from dom0.agent.journal import EVENTS, Journal

    with contextlib.suppress(OSError):  # as in `_forget_machine`
        if (state_directory() / EVENTS).is_dir():
            journal = Journal(state_directory(), now=time.time)
            journal.note(Kind.DOWN, "machine", "dom0 down", by=f"uid {os.getuid()}")
            journal.close()
