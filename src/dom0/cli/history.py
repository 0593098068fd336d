"""`dom0 history`: the generations, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dom0 import terminal, times
from dom0.cli.client import Agent
from dom0.names import short_id

if TYPE_CHECKING:
    from dom0.agent.status import GenerationInfo


@click.command(name="history")
@click.option("--json", "as_json", is_flag=True, help="A list of GenerationInfo documents.")
def command(as_json: bool) -> None:
    """List the generations of this machine: when, why, and how each one ended.

    $ dom0 history
    $ dom0 rollback 3  # go back to one of them
    """
    generations = Agent().history()
    heads = ("", "GENERATION", "PROJECT", "CREATED", "OUTCOME", "CAUSE", "SERVICES", "DOM0 IMAGE", "REASON")
    terminal.say_table(generations, heads, map(_row, generations), as_json=as_json)


def _row(info: GenerationInfo) -> tuple[str, ...]:
    back = f"back since {times.moment(info.back_at)}: {info.back_because}" if info.current and info.back_at else ""
    return (
        "*" if info.current else "",
        str(info.number),
        info.project,
        times.moment(info.created),
        str(info.outcome),
        info.cause,
        str(info.services),
        short_id(info.dom0_image),
        back or info.reason,
    )
