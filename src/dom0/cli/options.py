"""What all commands have in common: the options understood before the command's name, as in docker, and after it."""

from __future__ import annotations

import os
from inspect import cleandoc

import click

from dom0 import terminal


def complete(command: click.Command, *, hidden: bool = True) -> None:
    """Give a command and its subcommands the global options; may be called again."""
    _add_options(command, hidden=hidden)
    _keep_examples_as_written(command)
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            complete(subcommand)


def _add_options(command: click.Command, *, hidden: bool) -> None:
    """A command's own option of the same name wins."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in _global_options(hidden=hidden):
        names = [name for name in option.opts if name not in taken]
        if names:
            option.opts = names
            command.params.append(option)


def _keep_examples_as_written(command: click.Command) -> None:
    """A paragraph of command lines is not rewrapped: a backspace character before it is click's own mark for that."""
    command.help = cleandoc(command.help or "").replace("\n\n$ ", "\n\n\b\n$ ")


def _global_options(*, hidden: bool) -> list[click.Option]:
    return [
        click.Option(
            ["-H", "--host"],
            metavar="URL",
            expose_value=False,
            hidden=hidden,
            callback=_set_host,
            help="Docker Engine to use, as DOCKER_HOST: unix:///path, tcp://host:port or ssh://user@host.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            hidden=hidden,
            callback=_set_quiet,
            help="Print results and errors only.",
        ),
        click.Option(
            ["--no-color"],
            is_flag=True,
            expose_value=False,
            hidden=hidden,
            callback=_set_color,
            help="No colours, as NO_COLOR.",
        ),
    ]


def _set_host(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """The environment carries it, so that docker, buildx and compose below us ask the same Engine."""
    if value is not None:
        os.environ["DOCKER_HOST"] = value


def _set_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[terminal.QUIET] = True


def _set_color(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["NO_COLOR"] = "1"
    if os.environ.get("NO_COLOR"):
        ctx.color = False
