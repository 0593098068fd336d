"""`dom0 start`: this process becomes docker."""

from __future__ import annotations

import click

from dom0.cli import completion
from dom0.cli.containers import become_docker


@click.command(name="start")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True, shell_complete=completion.services)
def command(services: tuple[str, ...]) -> None:
    """Start the containers of each SERVICE, as docker start.

    For a service that was stopped; `dom0 up` starts all of them, and takes a changed project into account.

    $ dom0 start web
    """
    become_docker("start", services)
