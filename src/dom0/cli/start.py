"""`dom0 start`: docker does it."""

from __future__ import annotations

import click

from dom0.cli import completion
from dom0.cli.containers import let_docker


@click.command(name="start")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True, shell_complete=completion.services)
@click.option("--json", "as_json", is_flag=True, help="A list of objects: service, container.")
def command(services: tuple[str, ...], as_json: bool) -> None:
    """Start the containers of each SERVICE, as docker start.

    For a service that was stopped; `dom0 up` starts all of them, and takes a changed project into account.

    $ dom0 start web
    """
    let_docker("start", services, as_json=as_json)
