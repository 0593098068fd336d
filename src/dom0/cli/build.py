"""`dom0 build`: from a project to the image of a machine."""

from __future__ import annotations

from pathlib import Path

import click

from dom0.cli import options, terminal
from dom0.cli.report import Report
from dom0.cli.unchanged import taken_over_from


@click.command("build")
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path, resolve_path=True, file_okay=False)
)
@click.option("-t", "--tag", default="dom0:latest", show_default=True, metavar="NAME", help="Name of the image.")
@click.option("--no-cache", is_flag=True, help="Build the project's images anew, as docker build.")
@click.option("--pull", is_flag=True, help="Look for newer images below the project's own, as docker build.")
def command(directory: Path, tag: str, no_cache: bool, pull: bool) -> None:
    """Build the machine's image from the project in DIR, and the images of its services.

    What is up to date is not built again. Nothing that runs is touched: `dom0 up` does that.

    $ dom0 build  # the project of this directory
    $ dom0 build mybox --tag mybox:test
    """
    import asyncio

    asyncio.run(_build(directory, tag, no_cache=no_cache, pull=pull))


async def _build(directory: Path, tag: str, *, no_cache: bool, pull: bool) -> None:
    from dom0.engine.docker import DockerEngine
    from dom0.images.project import Options, build_project

    engine = await DockerEngine.connect()
    try:
        wanted = Options(tag=tag, no_cache=no_cache, pull=pull, in_place=taken_over_from(directory))
        built = await build_project(engine, directory, Report(), wanted)
    finally:
        await engine.close()
    if not options.quiet():
        state = "built" if built.changed else "up to date"
        terminal.say(f"{tag}: {state}, {terminal.short_id(built.image.id)}, {terminal.size(built.image.size)}")
