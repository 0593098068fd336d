"""`dom0 restart`: the agent does it, or docker where none answers."""

from __future__ import annotations

import click

from dom0.cli import completion
from dom0.cli.containers import let_docker


@click.command(name="restart")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True, shell_complete=completion.services)
@click.option("--json", "as_json", is_flag=True, help="A list of objects: service, container.")
def command(services: tuple[str, ...], as_json: bool) -> None:
    """Restart the containers of each SERVICE, as docker restart, after its pre_stop hooks.

    The containers stay the same ones. A changed project is not taken into account: `dom0 up` does that.

    $ dom0 restart web
    """
    let_docker("restart", services, as_json=as_json)
