"""`dom0 stop`: this process becomes docker."""

from __future__ import annotations

import click

from dom0.cli import completion
from dom0.cli.containers import become_docker


@click.command(name="stop")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True, shell_complete=completion.services)
def command(services: tuple[str, ...]) -> None:
    """Stop the containers of each SERVICE, as docker stop, after its pre_stop hooks.

    A stopped service stays stopped, also over a restart of the machine, until `dom0 start` or `dom0 up`.

    $ dom0 stop web
    """
    become_docker("stop", services)
