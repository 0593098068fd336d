"""`dom0 history`: the generations, newest first; what one of them asks for that another one does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dom0 import terminal, times
from dom0.cli import completion
from dom0.cli.client import Agent
from dom0.errors import UsageError
from dom0.names import short_id

if TYPE_CHECKING:
    from dom0.agent.status import GenerationInfo


@click.command(name="history")
@click.argument("generation", type=click.IntRange(min=1), required=False, shell_complete=completion.generations)
@click.option(
    "--compare", nargs=2, type=click.IntRange(min=1), metavar="A B", help="Show how generation B differs from A."
)
@click.option(
    "--json", "as_json", is_flag=True, help="A list of GenerationInfo; of a GENERATION or --compare of Difference."
)
def command(generation: int | None, compare: tuple[int, int] | None, as_json: bool) -> None:
    """List the generations of this machine: when, why, and how each one ended.

    With GENERATION, what that one asks for and the one made before it did not. Of variables, contents of files and
    options of drivers only that they differ is shown.

    $ dom0 history
    $ dom0 history 3   # what it changed
    $ dom0 history --compare 1 3
    $ dom0 rollback 3  # go back to it
    """
    if generation is not None and compare:
        raise UsageError("history: GENERATION and --compare exclude each other", hint="`dom0 history --help`")
    before, number = compare or (None, generation)
    if number is not None:
        differences = Agent().differences(number, before)
        rows = [(one.subject, one.key, one.before, one.after) for one in differences]
        terminal.say_table(differences, ("SUBJECT", "KEY", "BEFORE", "AFTER"), rows, as_json=as_json)
        return
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
