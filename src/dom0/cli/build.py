"""`dom0 build`: from a project to the image of a machine."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from dom0.cli import terminal
from dom0.cli.report import Report
from dom0.cli.unchanged import taken_over_from


class BuiltImage(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    name: str
    id: str
    size: int  # bytes, with what lies below
    changed: bool  # False: it was up to date


@click.command("build")
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path, resolve_path=True, file_okay=False)
)
@click.option("-t", "--tag", default="dom0:latest", show_default=True, metavar="NAME", help="Name of the image.")
@click.option("--no-cache", is_flag=True, help="Build the project's images anew, as docker build.")
@click.option("--pull", is_flag=True, help="Look for newer images below the project's own, as docker build.")
@click.option("--json", "as_json", is_flag=True, help="An object: name, id, size, changed.")
def command(directory: Path, tag: str, no_cache: bool, pull: bool, as_json: bool) -> None:
    """Build the machine's image from the project in DIR, and the images of its services.

    What is up to date is not built again. Nothing that runs is touched: `dom0 up` does that.

    $ dom0 build  # the project of this directory
    $ dom0 build mybox --tag mybox:test
    """
    import asyncio

    built = asyncio.run(_build(directory, tag, Report(beside=as_json), no_cache=no_cache, pull=pull))
    if as_json:
        terminal.say_json(built)
    elif not terminal.quiet():
        state = "built" if built.changed else "up to date"
        terminal.say(f"{tag}: {state}, {terminal.short_id(built.id)}, {terminal.size(built.size)}")


async def _build(directory: Path, tag: str, report: Report, *, no_cache: bool, pull: bool) -> BuiltImage:
    from dom0.engine.docker import DockerEngine
    from dom0.images.project import Options, build_project

    engine = await DockerEngine.connect()
    try:
        wanted = Options(tag=tag, no_cache=no_cache, pull=pull, in_place=taken_over_from(directory))
        built = await build_project(engine, directory, report, wanted)
    finally:
        await engine.close()
    return BuiltImage(name=tag, id=built.image.id, size=built.image.size, changed=built.changed)
