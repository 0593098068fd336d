"""`dom0 plan`: what `dom0 up` would do, and why. Changes nothing.

Both go the same way: the image is built (it gets no name, and what is new is gone afterwards), its project is read and
refused as the agent would, and the planner says its steps.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from dom0 import terminal
from dom0.cli.bring_up import image_as_it_is, private_roots, what_runs
from dom0.cli.client import Agent, AgentUnreachable, is_paused
from dom0.cli.engine_client import on_engine
from dom0.cli.in_use import place_of, projects_in_place, running_project
from dom0.cli.report import Report
from dom0.cli.unchanged import find_project, is_current, tagged_images
from dom0.errors import EXIT_CHANGES
from dom0.names import IMAGE, ROOT

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Image
    from dom0.plan.preview import Change

_COLOURS = {"remove": "red", "create": "green", "build": "cyan", "pull": "cyan"}


@click.command(name="plan")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-t", "--tag", default=IMAGE, show_default=True, metavar="NAME", help="Name of the dom0 image.")
@click.option("--no-build", is_flag=True, help="What `dom0 up --no-build` would do: with the dom0 image as it is.")
@click.option("--adopt", "adopts", is_flag=True, help="What `dom0 up --adopt` would do.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with action, kind, name and reason.")
def command(directory: Path | None, tag: str, no_build: bool, adopts: bool, as_json: bool) -> int:
    """Say what `dom0 up` would do with the project in DIR, and why; refuse what it would refuse. Changes nothing.

    Ends with 10 if there is something to do, with 0 if not. Images are built to see what becomes of them, which `dom0
    up` then finds done; they get no name. What a pull brings is known only afterwards.

    $ dom0 plan
    $ dom0 plan --json | jq -r '.[].name'
    """
    project = find_project(directory)
    changes = on_engine(lambda engine: _plan(engine, project, tag, build=not no_build, adopts=adopts))
    if changes:
        say_changes(changes, as_json=as_json)
        return EXIT_CHANGES
    asks = "this project" if project and not no_build else f"{tag}, as it is,"
    terminal.say_done(changes, f"nothing to do: the machine is as {asks} asks", as_json=as_json)
    return 0


def say_changes(changes: Sequence[Change], *, as_json: bool) -> None:
    rows = [(change.action, change.kind, change.name, change.reason) for change in changes]
    heads = ("ACTION", "KIND", "NAME", "REASON")
    terminal.say_table(changes, heads, rows, as_json=as_json, colours={"ACTION": _COLOURS})


async def _plan(engine: Engine, project: Path | None, tag: str, *, build: bool, adopts: bool) -> list[Change]:
    from dom0.agent.foresee import foresee
    from dom0.agent.in_use import find_adoptable
    from dom0.agent.source import read_project, resolve_without_pulling
    from dom0.cli.plan_files import file_changes
    from dom0.images import left_out
    from dom0.images.layout import placed_entries
    from dom0.plan.adoption import adopt
    from dom0.plan.preview import Change

    async with (
        _image(engine, project if build else None, tag, adopts=adopts) as image,
        read_project(
            engine,
            image,
            await place_of(engine, image, project, adopts=adopts),
            private_roots(project if build else None, image),
        ) as (etc, found),
    ):
        if project and not build and not is_current(project, tag, tagged_images()):
            terminal.say_to_stderr(f"{tag} is not what {project} would be built into: this is what {tag} asks for")
        candidate, pulled = await resolve_without_pulling(engine, image, found)
        if adopts:
            theirs = await find_adoptable(engine, candidate.desired)
            candidate = replace(candidate, desired=adopt(candidate.desired, theirs))
        containers = await foresee(engine, candidate, what_runs(), time.time())
        root = _root_container(image)
        always = "pull_policy: always; what runs from it is replaced if it is another one"
        pulls = [
            Change(action="pull", kind="image", name=need.ref, reason=always if here else "it is not here")
            for need, here in pulled
        ]
        files = file_changes(placed_entries(etc, found), left_out.read(etc)) if root else []
        return [*await _builds(engine, image, tag), *root, *pulls, *containers, *files]


@asynccontextmanager
async def _image(engine: Engine, project: Path | None, tag: str, *, adopts: bool) -> AsyncIterator[Image]:
    """The dom0 image that `dom0 up` would bring the machine to."""
    from dom0.images.project import Options, built_unnamed

    if project is not None:
        in_place = await projects_in_place(engine, project, adopts=adopts)
        wanted = Options(tag=tag, taken_over=in_place, running=running_project())
        async with built_unnamed(engine, project, Report(beside=True).say, wanted) as built:
            with built.named_as_written():
                yield built.image
    else:
        yield await image_as_it_is(engine, tag, Report(beside=True).say)


async def _builds(engine: Engine, image: Image, tag: str) -> list[Change]:
    """The names that would move to what is built."""
    from dom0.engine.protocol import find_image
    from dom0.images.fingerprint import images_of
    from dom0.plan.preview import Change

    changes = []
    for name, image_id in {tag: image.id, **images_of(image.labels)}.items():
        present = await find_image(engine, name)
        if present is None or present.id != image_id:
            reason = "what it is made from has changed" if present else "it does not exist"
            changes.append(Change(action="build", kind="image", name=name, reason=reason))
    return changes


def _root_container(image: Image) -> list[Change]:
    from dom0.plan.preview import Change

    if is_paused():
        return [Change(action="start", kind="container", name=ROOT, reason="it was paused")]
    try:
        status = Agent().status()
        if status.is_guest or status.dom0_image == image.id:
            return []
        return [Change(action="replace", kind="container", name=ROOT, reason="its image changes")]
    except AgentUnreachable:
        return [Change(action="create", kind="container", name=ROOT, reason="it does not run")]
