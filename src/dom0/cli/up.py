"""`dom0 up`: build the project and let the machine become it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dom0.agent.status import Outcome, Progress, Status
from dom0.cli import terminal, unchanged
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.follow import follow
from dom0.cli.in_use import place_of, projects_in_place
from dom0.cli.places import is_here
from dom0.cli.report import Report, watching
from dom0.cli.unchanged import TAG, find_project
from dom0.errors import Busy, Dom0Error, NotFound, RolledBack

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Container, Image

SUCCESSION_WITHIN = 240.0  # seconds for the new root container to be in its place
PAUSE = 0.1  # seconds between looks at it
ASK_HERE, PAUSE_HERE = 1.0, 0.02  # seconds: to ask on this machine's socket before a process in the container asks


@click.command("up")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-t", "--tag", default=TAG, show_default=True, metavar="NAME", help="Name of the dom0 image.")
@click.option("--build", is_flag=True, expose_value=False, help="As Compose: what has changed is built anyway.")
@click.option("-d", "--detach", is_flag=True, expose_value=False, help="As Compose: what is started runs on anyway.")
@click.option("--no-build", is_flag=True, help="Take the dom0 image as it is.")
@click.option("--force-recreate", is_flag=True, help="Recreate every container, changed or not.")
@click.option("--adopt", is_flag=True, help="Take over what Docker Compose runs of this project.")
@click.option("--json", "as_json", is_flag=True, help="Progress documents, one a line.")
def command(directory: Path | None, tag: str, no_build: bool, force_recreate: bool, adopt: bool, as_json: bool) -> None:
    """Build the project in DIR and bring the machine to it; a change that does not become healthy goes back by itself.

    Without DIR it is the project in this directory, or else the dom0 image that is there. What runs and has not changed
    is left alone; what a person stopped is started again.

    $ dom0 up  # the project of this directory
    $ dom0 up examples/mybox
    $ dom0 up --no-build --tag dom0:yesterday
    $ dom0 up --adopt  # in the directory that `docker compose up` was called in
    """
    project = None if no_build else find_project(directory)
    if project is not None and not (force_recreate or adopt) and (machine := unchanged.nothing_to_do(project, tag)):
        _say_nothing_to_do(machine, as_json=as_json)
        return
    import asyncio  # it costs as much as all of the above

    last = asyncio.run(bring_up(project, tag, force=force_recreate, adopts=adopt, as_json=as_json))
    if not as_json:
        terminal.say(f"generation {last.generation} is {last.outcome}")


def _say_nothing_to_do(machine: unchanged.Machine, *, as_json: bool) -> None:
    if as_json:
        terminal.say_json_line(Progress(text=machine.text, outcome=Outcome.GOOD, generation=machine.generation))
    else:
        terminal.say(machine.text)


async def bring_up(
    project: Path | None, tag: str, *, force: bool = False, adopts: bool = False, trial: float = 0.0, as_json: bool
) -> Progress:
    """Build, let the image's project become the machine, and wait for the outcome. `trial` in seconds, 0: none.

    Raises RolledBack, ProjectError, EngineError, UsageError.
    """
    from dom0.agent.handover import forget_failure, recover
    from dom0.engine.docker import DockerEngine
    from dom0.images import private

    report = Report(as_json=as_json)
    engine = await DockerEngine.connect()
    try:
        await recover(engine, report)
        image = await _image(engine, project, tag, report, adopts=adopts)
        if project is not None:
            await private.deliver(engine, image, project)
        await forget_failure(engine)
        if trial:
            Agent().announce_trial(image.id, trial)
        try:
            with watching("the start of dom0"):
                await place_of(engine, image, project, adopts=adopts)
                in_place = await _become(engine, image, project, report, adopts=adopts)
            lines = Agent().up(force=force, adopt=adopts, dom0_image=image.id if in_place else "")
            last = follow(lines, report)
        except Busy:
            await _forget(engine, image)
            raise
        if in_place and last.outcome is Outcome.GOOD:
            await await_succession(engine, report)
        return last
    finally:
        await engine.close()


async def _forget(engine: Engine, image: Image) -> None:
    """What was built for nothing, unless it is what the machine is busy with."""
    from dom0.images import names

    generation = Agent().status().generation
    if generation is None or generation.dom0_image != image.id:
        await names.unmark(engine, image.id)


async def _image(engine: Engine, project: Path | None, tag: str, say: Callable[[str], None], *, adopts: bool) -> Image:
    """Built anew, it has no name yet but that it is to be taken up."""
    from dom0.images import names

    if project is not None:
        if not adopts and (current := _built_before(project, tag)):
            return await engine.image(current)

        from dom0.images.project import Options, built_unnamed

        in_place = await projects_in_place(engine, project, adopts=adopts)
        async with built_unnamed(engine, project, say, Options(tag=tag, in_place=in_place)) as built:
            await names.mark(engine, built.image, tag)
        return built.image
    image = await names.find(engine, tag)
    if image is None:
        raise unchanged.no_image(tag)
    say(f"{tag}: as it is, no project is read")
    return image


def _built_before(project: Path, tag: str) -> str:
    """The ID of the dom0 image if it is up to date, else "": a build would find the same, but looks at more."""
    images = unchanged.tagged_images()
    return images[tag].id if unchanged.is_current(project, tag, images) else ""


async def _become(
    engine: Engine, image: Image, project: Path | None, say: Callable[[str], None], *, adopts: bool
) -> bool:
    """Let a root container of `image` run, or leave it to the running one if only the project differs (True)."""
    from dom0.agent.contract import NAME
    from dom0.agent.handover import hand_over, start_root
    from dom0.images import names
    from dom0.plan.labels import BASE

    try:
        root = await engine.container(NAME)
    except NotFound:
        root = None
    if root is not None and root.running:
        if root.image_id == image.id:
            return False
        if root.labels.get(BASE) == image.labels.get(BASE):
            return True
    await _refuse_beforehand(engine, image, project, say, adopts=adopts)
    async with names.taken_up_later(engine, image.id):
        if root is not None and root.running:
            await hand_over(engine, image.id, say)
        else:
            await start_root(engine, image.id, say, _ask_here)
    return False


async def _refuse_beforehand(
    engine: Engine, image: Image, project: Path | None, say: Callable[[str], None], *, adopts: bool
) -> None:
    """The new agent would refuse the same; but then its container runs already. Raises ProjectError, EngineError."""
    from dom0.agent.foresee import refuse
    from dom0.agent.in_use import find_adoptable
    from dom0.agent.source import read_project, resolve_beforehand
    from dom0.cli.plan import private_roots, what_runs
    from dom0.images import names, private
    from dom0.plan.adoption import adopt

    roots = private_roots(project, image)
    if private.of_image(image.labels) and not roots:
        return  # of another machine: only its agent can read the project
    try:
        place = await place_of(engine, image, project, adopts=adopts)
        async with read_project(engine, image, place, roots) as (_, found):
            desired = await resolve_beforehand(engine, image, found, say)
        if adopts:
            desired = adopt(desired, await find_adoptable(engine, desired))
        await refuse(engine, desired, what_runs())
    except Dom0Error:
        await names.unmark(engine, image.id)
        raise


async def _ask_here(engine: Engine, root: Container) -> bool:
    """A process in the container would take a processor from the agent that it waits for.

    Where the Engine is that of another machine, nobody answers here for this container.
    """
    import asyncio

    from dom0.agent.handover import ask_inside

    deadline = time.monotonic() + ASK_HERE
    while is_here() and time.monotonic() < deadline:
        with contextlib.suppress(Dom0Error):
            if Agent().status().dom0_image == root.image_id:
                return True
        await asyncio.sleep(PAUSE_HERE)
    return await ask_inside(engine, root)


async def await_succession(engine: Engine, report: Report) -> None:
    """A good generation of another dom0 image brings that image too: wait until it is in its place. Raises RolledBack.

    Between the old agent's end and the new one's first answer nobody answers.
    """
    import asyncio

    from dom0.agent.handover import follow_helper

    report.aside("dom0: its new image takes the place of the running one")
    deadline = time.monotonic() + SUCCESSION_WITHIN
    with watching("the change of the dom0 image"):
        while time.monotonic() < deadline:
            await follow_helper(engine)
            if (status := _ask()) and _is_in_its_place(status):
                report.aside(f"dom0: runs from its new image {terminal.short_id(status.dom0_image)}")
                return
            await asyncio.sleep(PAUSE)
    hint = "what happened: docker logs dom0-handover; the services are as they should be: dom0 status"
    raise RolledBack("dom0: the new dom0 image did not take over", hint=hint)


def _ask() -> Status | None:
    try:
        return Agent().status()
    except AgentUnreachable:
        return None


def _is_in_its_place(status: Status) -> bool:
    """Raises RolledBack if it has been there and the one before it is back."""
    if status.generation is None or status.generation.dom0_image in ("", status.dom0_image):
        return True
    failure = next((problem for problem in status.problems if problem.code == "handover-failed"), None)
    if failure is not None:
        raise RolledBack(failure.title, hint=failure.hint)
    return False


async def await_announced_succession(report: Report) -> None:
    """The same with an Engine of its own, where there is something to wait for."""
    if (status := _ask()) and _is_in_its_place(status):
        return

    from dom0.engine.docker import DockerEngine

    engine = await DockerEngine.connect()
    try:
        await await_succession(engine, report)
    finally:
        await engine.close()
