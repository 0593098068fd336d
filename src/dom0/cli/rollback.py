"""`dom0 rollback`: back to a generation that was good."""

from __future__ import annotations

import click

from dom0 import terminal
from dom0.cli import completion
from dom0.cli.client import Agent
from dom0.cli.follow import follow
from dom0.cli.report import Report
from dom0.cli.succession import await_announced_succession


@click.command(name="rollback")
@click.argument("generation", type=click.IntRange(min=1), required=False, shell_complete=completion.generations)
@click.option("--json", "as_json", is_flag=True, help="Progress documents, one a line.")
def command(generation: int | None, as_json: bool) -> None:
    """Go back to GENERATION, or to the last good one before the current one.

    Waits until its services run; ends with 5 if they do not become healthy.

    $ dom0 rollback
    $ dom0 history && dom0 rollback 3
    """
    report = Report(as_json=as_json)
    last = follow(Agent().rollback(generation), report)
    await_announced_succession(report)
    if not as_json:
        terminal.say(f"generation {last.generation} is {last.outcome}")
