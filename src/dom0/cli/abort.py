"""`dom0 abort`: end the change that is under way, and go back."""

from __future__ import annotations

import click

from dom0 import terminal
from dom0.cli import status
from dom0.cli.client import Agent


@click.command(name="abort")
@click.option("--json", "as_json", is_flag=True, help="The agent's Status document.")
def command(as_json: bool) -> None:
    """End the change that is under way and go back to the generation before it.

    For a `dom0 up` or `dom0 rollback`, also after its command was interrupted, and for a generation on trial. A build
    is ended with Ctrl-C.

    $ dom0 abort
    """
    now = Agent().abort()
    terminal.say_result(now, status.headline(now), as_json=as_json)
