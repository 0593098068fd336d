"""`dom0 stop`: the agent does it, or docker where none answers."""

from __future__ import annotations

import click

from dom0.cli import completion
from dom0.cli.containers import let_docker


@click.command(name="stop")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True, shell_complete=completion.services)
@click.option("--json", "as_json", is_flag=True, help="A list of objects: service, container.")
def command(services: tuple[str, ...], as_json: bool) -> None:
    """Stop the containers of each SERVICE, as docker stop, after its pre_stop hooks.

    A stopped service stays stopped, also over a restart of the machine, until `dom0 start` or `dom0 up`.

    $ dom0 stop web
    """
    let_docker("stop", services, as_json=as_json)
