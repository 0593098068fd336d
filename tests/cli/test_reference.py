"""The page of the documentation that lists the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from dom0.cli.commands import cli
from dom0.testing import reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_every_command_has_json_but_those_that_the_reference_names() -> None:
    without = {" ".join(path) for path, command in commands(cli) if "--json" not in options_of(command)}
    terminal = {"exec", "farm exec", "dev", "os run", "disk format", "disk adopt", "completion", "schema"}
    assert without == terminal | {"socket serve", "socket hold", "image serve"}
    assert all(f"`{name}`" in reference.page().partition("## Project")[0] for name in without)


def commands(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by the words that it is called with."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        elif not command.hidden:
            yield (*above, name), command


def options_of(command: click.Command) -> list[str]:
    return [name for parameter in command.params for name in parameter.opts]


def test_the_reference_is_what_the_commands_say_of_themselves() -> None:
    assert PAGE.read_text() == reference.page(), "python -m dom0.testing.reference > docs/reference/commands.md"
