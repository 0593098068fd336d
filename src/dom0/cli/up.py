"""`dom0 up`: build the project and let the machine become it. fastpath.py does the same for its plainest form."""

from __future__ import annotations

from pathlib import Path

import click

from dom0 import terminal
from dom0.agent.status import Outcome, Progress
from dom0.cli import unchanged
from dom0.cli.bring_up import run
from dom0.cli.unchanged import find_project
from dom0.names import IMAGE


@click.command("up")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-t", "--tag", default=IMAGE, show_default=True, metavar="NAME", help="Name of the dom0 image.")
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
    project, image = None if no_build else find_project(directory), None
    if project is not None and not (force_recreate or adopt):
        machine, image = unchanged.look(project, tag)
        if machine is not None:
            if as_json:
                done = Progress(text=machine.text, outcome=Outcome.GOOD, generation=machine.generation)
                terminal.say_json_line(done)
            else:
                terminal.say(machine.text)
            return
    run(project, tag, image=image, force=force_recreate, adopts=adopt, wait=wait, as_json=as_json)
