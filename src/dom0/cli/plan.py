"""`dom0 plan`: what `dom0 up` would do, and why. Changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from dom0 import temporary
from dom0.cli import options, terminal
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.places import is_here, state_directory
from dom0.cli.unchanged import TAG, is_current, tagged_images
from dom0.errors import EXIT_CHANGES, NotFound, ProjectError

if TYPE_CHECKING:
    from dom0.compose.model import Project
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image
    from dom0.plan.desired import Desired
    from dom0.plan.memory import Memory
    from dom0.plan.preview import Change

_COLOURS = {"remove": "red", "create": "green", "build": "cyan"}


@click.command(name="plan")
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path, resolve_path=True, file_okay=False)
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects with action, kind, name and reason.")
def command(directory: Path, as_json: bool) -> int:
    """Say what `dom0 up` would do with the project in DIR, and why. Changes nothing.

    Ends with 10 if there is something to do, with 0 if not. Images are taken as they are: what a build or a pull would
    change in them is known only afterwards.

    $ dom0 plan
    $ dom0 plan --json | jq -r '.[].name'
    """
    changes = asyncio.run(_plan(directory))
    if as_json:
        terminal.say_json(changes)
    elif changes:
        rows = [(change.action, change.kind, change.name, change.reason) for change in changes]
        terminal.say_columns(("ACTION", "KIND", "NAME", "REASON"), rows, styles={"ACTION": _colour})
    elif not options.quiet():
        terminal.say("nothing to do: the machine is as this project asks")
    return EXIT_CHANGES if changes else 0


def _colour(action: str) -> str:
    return click.style(action, fg=_COLOURS.get(action, "yellow"))


async def _plan(directory: Path) -> list[Change]:
    from dom0.cli.plan_files import file_changes
    from dom0.engine.docker import DockerEngine
    from dom0.images.project import placed_entries

    engine = await DockerEngine.connect()
    try:
        async with _project(engine, directory) as (project, read_in):
            images = await _images(engine, directory, project)
            files = file_changes(placed_entries(read_in, project)) if images else []
            return [*images, *await _containers(engine, project), *files]
    finally:
        await engine.close()


@asynccontextmanager
async def _project(engine: Engine, directory: Path) -> AsyncIterator[tuple[Project, Path]]:
    """The project as the agent will read it, and where. One with its own Dockerfile is read from its image."""
    from dom0.compose.load import load
    from dom0.images import private
    from dom0.images.project import PLACED, find_dockerfile
    from dom0.images.unpack import unpack_project

    if not (own := await find_dockerfile(engine, directory)):
        yield await load(directory, PLACED), directory
        return
    if not _is_built(directory):
        raise ProjectError(
            f"{directory / own}: what is in its image is known only when it is built",
            hint="dom0 build makes the image and touches nothing that runs; then dom0 plan",
        )
    with temporary.directory("plan") as scratch:
        unpacked = await unpack_project(engine, TAG, scratch)
        private.lay(private.of_image((await engine.image(TAG)).labels), unpacked, [directory], "")
        yield await load(unpacked, PLACED), unpacked


def _is_built(directory: Path) -> bool:
    return is_current(directory, TAG, tagged_images())


async def _images(engine: Engine, directory: Path, project: Project) -> list[Change]:
    """What would be built, and whether dom0 itself would be another one."""
    from dom0.plan.facts import image_ref
    from dom0.plan.preview import Change

    changes = []
    image = await _find(engine, TAG)
    if image is None:
        changes.append(Change(action="build", kind="image", name=TAG, reason="it does not exist"))
    elif not _is_built(directory):
        changes.append(Change(action="build", kind="image", name=TAG, reason="what it is made from has changed"))
    built = sorted({image_ref(project, name) for name, service in project.services.items() if service.build})
    absent = [ref for ref in built if await _find(engine, ref) is None]
    changes += [Change(action="build", kind="image", name=ref, reason="it does not exist") for ref in absent]
    return changes + _own_container(image, is_built_anew=bool(changes))


def _own_container(image: Image | None, *, is_built_anew: bool) -> list[Change]:
    from dom0.agent.contract import NAME
    from dom0.plan.preview import Change

    try:
        running = Agent().status().dom0_image
    except AgentUnreachable:
        return [Change(action="create", kind="container", name=NAME, reason="it does not run")]
    if is_built_anew or (image is not None and image.id != running):
        return [Change(action="replace", kind="container", name=NAME, reason="its image changes")]
    return []


async def _containers(engine: Engine, project: Project) -> list[Change]:
    from dom0.agent.in_use import find_others, require_free
    from dom0.agent.observe import Observer
    from dom0.agent.ownership import Ownership, read_seal
    from dom0.plan.preview import preview

    desired = await desired_with_images_here(engine, project)
    require_free(desired, await find_others(engine, project.name))
    observer = Observer(engine, Ownership(project.name, read_seal(state_directory())))
    await observer.look()
    return preview(desired, await observer.actual(desired), _memory(), time.time())


async def desired_with_images_here(engine: Engine, project: Project) -> Desired:
    """In the place of an image that is not here, one that nothing runs from."""
    from dom0.engine.values import Image
    from dom0.images.recipe import BASE
    from dom0.plan.expand import expand
    from dom0.plan.facts import Facts, images_needed

    refs = {need.ref for need in images_needed(project)} | {BASE}
    unknown = Image(id=f"sha256:{'0' * 64}", tags=(), has_healthcheck=True, healthcheck_test=("CMD", "true"))  # or not
    found = {ref: await _find(engine, ref) or unknown for ref in refs}
    facts = Facts(images=found, base=found[BASE], api_version=(await engine.info()).api_version)
    return expand(project, facts)


def _memory() -> Memory:
    """What the agent knows about finished jobs; `dom0 up` forgets the rest.

    Nothing without the right to read it, and of another machine.
    """
    from dom0.agent.store import read_json
    from dom0.plan.memory import Memory

    try:
        memory = read_json(state_directory() / "memory.json", Memory) if is_here() else None
    except PermissionError:
        memory = None
    return replace(Memory(), completed=memory.completed, gated=memory.gated) if memory else Memory()


async def _find(engine: Engine, ref: str) -> Image | None:
    try:
        return await engine.image(ref)
    except NotFound:
        return None
