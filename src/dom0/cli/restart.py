"""`dom0 restart`: this process becomes docker."""

from __future__ import annotations

import click

from dom0.cli import completion
from dom0.cli.containers import become_docker


@click.command(name="restart")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True, shell_complete=completion.services)
def command(services: tuple[str, ...]) -> None:
    """Restart the containers of each SERVICE, as docker restart, after its pre_stop hooks.

    The containers stay the same ones. A changed project is not taken into account: `dom0 up` does that.

    $ dom0 restart web
    """
    become_docker("restart", services)
