"""`dom0 rollback`: back to a generation that was good, or what that would do."""

from __future__ import annotations

import click

from dom0 import terminal
from dom0.cli import completion
from dom0.cli.client import Agent
from dom0.cli.follow import follow
from dom0.cli.plan import say_changes
from dom0.cli.report import Report
from dom0.cli.succession import await_announced_succession
from dom0.errors import UsageError


@click.command(name="rollback")
@click.argument("generation", type=click.IntRange(min=1), required=False, shell_complete=completion.generations)
@click.option("--plan", "only_plan", is_flag=True, help="Say what it would do to what runs, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Progress documents, one a line; with --plan as dom0 plan.")
def command(generation: int | None, only_plan: bool, as_json: bool) -> None:
    """Go back to GENERATION, or to the last good one before the current one.

    Waits until its services run; ends with 5 if they do not become healthy.

    $ dom0 rollback
    $ dom0 history && dom0 rollback --plan 3 && dom0 rollback 3
    """
    if only_plan:
        if not generation:
            generations = Agent().history()
            current = next((one.number for one in generations if one.current), 0)
            good = [one.number for one in generations if one.outcome == "good" and one.number < current]
            if not good:
                raise UsageError("rollback: there is no good generation before this one", hint="dom0 history")
            generation = good[0]
        say_changes(Agent().plan_rollback(generation), as_json=as_json)
        return
    report = Report(as_json=as_json)
    last = follow(Agent().rollback(generation), report)
    await_announced_succession(report)
    if not as_json:
        terminal.say(f"generation {last.generation} is {last.outcome}")
