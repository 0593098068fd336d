"""`dom0 up`: build the project and let the machine become it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dom0 import times
from dom0.agent.status import Outcome, Progress
from dom0.cli import succession, terminal, unchanged
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.follow import follow
from dom0.cli.in_use import place_of, projects_in_place
from dom0.cli.places import is_here
from dom0.cli.report import Report, watching
from dom0.cli.unchanged import TAG, find_project
from dom0.errors import Busy, Dom0Error, NotFound

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Container, Image

START_WITHIN = 30.0  # seconds for the agent in a root container that runs to answer
ASK_HERE, PAUSE_HERE = 1.0, 0.02  # seconds: to ask on this machine's socket before a process in the container asks


@click.command("up")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-t", "--tag", default=TAG, show_default=True, metavar="NAME", help="Name of the dom0 image.")
@click.option("--build", is_flag=True, expose_value=False, help="As Compose: what has changed is built anyway.")
@click.option("-d", "--detach", is_flag=True, expose_value=False, help="As Compose: what is started runs on anyway.")
@click.option("--no-build", is_flag=True, help="Take the dom0 image as it is.")
@click.option("--force-recreate", is_flag=True, help="Recreate every container, changed or not.")
@click.option("--adopt", is_flag=True, help="Take over what Docker Compose runs of this project.")
@click.option("--wait", is_flag=True, help="Return when it is known whether it stays well, with 5 if it went back.")
@click.option("--json", "as_json", is_flag=True, help="Progress documents, one a line.")
def command(
    directory: Path | None,
    tag: str,
    no_build: bool,
    force_recreate: bool,
    adopt: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Build the project in DIR and bring the machine to it; a change that does not become healthy goes back by itself.

    Without DIR it is the project in this directory, or else the dom0 image that is there. What runs and has not changed
    is left alone; what a person stopped is started again. Returns when everything is ready, and says until when it is
    watched.

    $ dom0 up  # the project of this directory
    $ dom0 up --wait examples/mybox  # in a script
    $ dom0 up --no-build --tag dom0:yesterday
    $ dom0 up --adopt  # in the directory that `docker compose up` was called in
    """
    project = None if no_build else find_project(directory)
    if project is not None and not (force_recreate or adopt) and (machine := unchanged.nothing_to_do(project, tag)):
        _say_nothing_to_do(machine, as_json=as_json)
        return
    import asyncio  # it costs as much as all of the above

    last = asyncio.run(bring_up(project, tag, force=force_recreate, adopts=adopt, wait=wait, as_json=as_json))
    if not as_json:
        terminal.say(f"generation {last.generation} is {last.outcome}" if last.outcome else _watched(last))


def _watched(last: Progress) -> str:
    until = times.moment(last.watched_until)
    if last.goes_back_to:
        otherwise = f"if it does not stay well, the machine goes back to generation {last.goes_back_to} by itself"
    else:
        otherwise = "there is no good one to go back to: if it does not stay well, dom0 goes on trying"
    return f"generation {last.generation} is ready, and watched until {until}: {otherwise}"


def _say_nothing_to_do(machine: unchanged.Machine, *, as_json: bool) -> None:
    if as_json:
        terminal.say_json_line(Progress(text=machine.text, outcome=Outcome.GOOD, generation=machine.generation))
    else:
        terminal.say(machine.text)


async def bring_up(
    project: Path | None,
    tag: str,
    *,
    force: bool = False,
    adopts: bool = False,
    trial: float = 0.0,
    wait: bool = True,
    as_json: bool,
) -> Progress:
    """Build, let the image's project become the machine, and wait for the outcome. `trial` in seconds, 0: none.

    Without `wait` only until all is ready: what it returns then has no outcome, and says until when it is watched.
    Raises RolledBack, ProjectError, EngineError, UsageError.
    """
    from dom0.engine.docker import DockerEngine
    from dom0.images import private

    report = Report(as_json=as_json)
    engine = await DockerEngine.connect()
    try:
        image = await _image(engine, project, tag, report, adopts=adopts)
        if project is not None:
            await private.deliver(engine, image, project)
        if trial:
            Agent().announce_trial(image.id, trial)
        ask = partial(Agent(patient=False).up, force=force, adopt=adopts)
        last, in_place = await _take_up(engine, image, project, ask, report, adopts=adopts, wait=wait)
        if in_place and last.outcome is Outcome.GOOD:
            await succession.await_succession(engine, report)
        elif in_place and last.outcome is None:
            new = terminal.short_id(image.id)
            report.aside(f"dom0: its new image {new} takes the place of the running one when the generation is good")
        return last
    finally:
        await engine.close()


async def _take_up(
    engine: Engine,
    image: Image,
    project: Path | None,
    ask: Callable[..., Iterator[Progress]],
    report: Report,
    *,
    adopts: bool,
    wait: bool,
) -> tuple[Progress, bool]:
    """The last line of progress, and whether the running agent has taken the project up in place of its image's.

    An agent that gives way to the image of the generation before does not answer: its successor is asked.
    """
    from dom0.agent.handover import forget_failure, is_at_work

    while True:
        await succession.let_end(engine, report)
        await forget_failure(engine)
        try:
            with watching("the start of dom0"):
                await place_of(engine, image, project, adopts=adopts)
                in_place = await _become(engine, image, project, report, adopts=adopts)
            return follow(ask(dom0_image=image.id if in_place else ""), report, wait=wait), in_place
        except (Busy, AgentUnreachable) as error:
            if await is_at_work(engine) or (_is_down(error) and await _comes_up(engine)):
                continue
            if isinstance(error, Busy):
                await _forget(engine, image)
            raise


def _is_down(error: Dom0Error) -> bool:
    return isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)


async def _comes_up(engine: Engine) -> bool:
    """Whether the agent answers after all: its container runs, started a moment ago by the Engine or by somebody."""
    import asyncio

    from dom0.agent.contract import NAME

    deadline = time.monotonic() + START_WITHIN
    with contextlib.suppress(NotFound):
        while (await engine.container(NAME)).running and time.monotonic() < deadline:
            with contextlib.suppress(Dom0Error):
                Agent(patient=False).status()
                return True
            await asyncio.sleep(succession.PAUSE)
    return False


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
        async with read_project(engine, image, place, roots, hashed=adopts) as (_, found):
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
            if Agent(patient=False).status().dom0_image == root.image_id:
                return True
        await asyncio.sleep(PAUSE_HERE)
    return await ask_inside(engine, root)
