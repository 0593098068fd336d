"""`dom0 build`: from a project to the image of a machine."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from dom0 import terminal
from dom0.cli import kept_reading
from dom0.cli.engine_client import on_engine
from dom0.cli.report import Report
from dom0.cli.unchanged import taken_over_from
from dom0.names import IMAGE, short_id


class MachineImage(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    name: str
    id: str
    size: int  # bytes, with what lies below
    changed: bool  # False: it was up to date


@click.command("build")
@click.argument(
    "directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path, resolve_path=True, file_okay=False)
)
@click.option("-t", "--tag", default=IMAGE, show_default=True, metavar="NAME", help="Name of the image.")
@click.option("--no-cache", is_flag=True, help="Build the project's images anew, as docker build.")
@click.option("--pull", is_flag=True, help="Look for newer images below the project's own, as docker build.")
@click.option("--json", "as_json", is_flag=True, help="An object: name, id, size, changed.")
def command(directory: Path, tag: str, no_cache: bool, pull: bool, as_json: bool) -> None:
    """Build the machine's image from the project in DIR, and the images of its services.

    What is up to date is not built again. Nothing that runs is touched: `dom0 up` does that.

    $ dom0 build  # the project of this directory
    $ dom0 build mybox --tag mybox:test
    """
    from dom0.images.project import Options, build_project

    wanted = Options(tag=tag, no_cache=no_cache, pull=pull, taken_over=taken_over_from(directory))
    built = on_engine(lambda engine: build_project(engine, directory, Report(beside=as_json).say, wanted))
    kept_reading.keep(built)
    image, state = built.image, "built" if built.changed else "up to date"
    terminal.say_done(
        MachineImage(name=tag, id=image.id, size=image.size, changed=built.changed),
        f"{tag}: {state}, {short_id(image.id)}, {terminal.size(image.size)}",
        as_json=as_json,
    )
