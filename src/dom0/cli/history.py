"""`dom0 history`: the generations, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dom0 import times
from dom0.cli import terminal
from dom0.cli.client import Agent

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
    if as_json:
        terminal.say_json(generations)
        return
    heads = ("", "GENERATION", "PROJECT", "CREATED", "OUTCOME", "CAUSE", "SERVICES", "DOM0 IMAGE", "REASON")
    terminal.say_columns(heads, [_row(info) for info in generations])


def _row(info: GenerationInfo) -> tuple[str, ...]:
    return (
        "*" if info.current else "",
        str(info.number),
        info.project,
        times.moment(info.created),
        str(info.outcome),
        info.cause,
        str(info.services),
        terminal.short_id(info.dom0_image),
        _reason(info),
    )


def _reason(info: GenerationInfo) -> str:
    if info.current and info.back_at:
        return f"back since {times.moment(info.back_at)}: {info.back_because}"
    return info.reason
