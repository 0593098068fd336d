"""`dom0 confirm`: keep the generation that `dom0 try` brought."""

from __future__ import annotations

import click

from dom0 import terminal
from dom0.cli import status
from dom0.cli.client import Agent
from dom0.cli.report import Report
from dom0.cli.succession import await_announced_succession


@click.command(name="confirm")
@click.option("--json", "as_json", is_flag=True, help="The agent's Status document.")
def command(as_json: bool) -> None:
    """Keep the generation on trial: it does not go back any more.

    $ dom0 try . --for 60s && curl -f localhost:8080
    $ dom0 confirm
    """
    now = Agent().confirm()
    await_announced_succession(Report(as_json=as_json))
    terminal.say_result(now, status.headline(now), as_json=as_json)
