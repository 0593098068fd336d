"""Whether a command line of dom0's would be understood: what pages and the page in the browser tell people to type."""

from __future__ import annotations

import click

from dom0.cli.commands import cli


def parse_dom0(arguments: list[str], *, complete: bool) -> None:
    """Parse a command line without running it. Raises click.UsageError, AssertionError."""
    command: click.Command = cli
    ctx = click.Context(cli, info_name="dom0")
    while isinstance(command, click.Group):
        _, rest, _ = command.make_parser(ctx).parse_args(list(arguments))
        if not rest:
            return
        found = command.get_command(ctx, rest[0])
        assert found is not None, f"{ctx.command_path} {rest[0]}: no such command"
        arguments, command, ctx = rest[1:], found, click.Context(found, info_name=rest[0], parent=ctx)
    values, rest, _ = command.make_parser(ctx).parse_args(list(arguments))
    assert not rest, f"{ctx.command_path}: too many arguments: {rest}"
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if isinstance(value, str) and isinstance(parameter.type, click.Choice):
            assert value in parameter.type.choices
        if complete and parameter.required:
            given = isinstance(value, str | tuple | list) and len(value) > 0
            assert given, f"{ctx.command_path}: {parameter.name} is missing"
