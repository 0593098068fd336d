"""`dom0 try`: bring a project up that goes back by itself unless it is confirmed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from dom0 import terminal
from dom0.agent.status import Outcome
from dom0.cli.bring_up import bring_up
from dom0.cli.client import Agent
from dom0.cli.unchanged import find_project
from dom0.durations import seconds
from dom0.names import IMAGE

SHORTEST, LONGEST = 5.0, 7 * 86400.0  # seconds


def read_duration(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        length = seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no duration: write 60s, 5m or 1h30m") from error
    if not SHORTEST <= length <= LONGEST:
        raise click.BadParameter(f"{value} is not between 5s and a week")
    return length


@click.command("try")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--for",
    "length",
    required=True,
    metavar="TIME",
    callback=read_duration,
    help="When it goes back unless it is confirmed: 60s, 5m, 1h30m. Has to be given.",
)
@click.option("-t", "--tag", default=IMAGE, show_default=True, metavar="NAME", help="Name of the dom0 image.")
@click.option("--json", "as_json", is_flag=True, help="Progress documents, one a line.")
def command(directory: Path | None, length: float, tag: str, as_json: bool) -> None:
    """Bring the machine to the project in DIR for a while: it goes back by itself unless `dom0 confirm` comes in time.

    Going back needs nothing from you, no network and no terminal: also if dom0 or the machine restarts meanwhile.

    $ dom0 try . --for 60s
    $ dom0 confirm
    """
    Agent().status()  # a trial needs something to go back to
    last = asyncio.run(bring_up(find_project(directory), tag, trial=length, as_json=as_json))
    text = f"is {last.outcome}: nothing differs, so nothing is on trial"
    if last.outcome is Outcome.TRIAL:
        text = f"goes back in {length:g}s unless you keep it: dom0 confirm"
    if not as_json:
        terminal.say(f"generation {last.generation} {text}")
