"""What commands have in common: the options understood before the command's name, as in docker, and after it; times."""

from __future__ import annotations

import os
import time
from datetime import datetime
from inspect import cleandoc
from typing import Any

import click

from dom0 import terminal
from dom0.durations import seconds

COMPLETION = "_DOM0_COMPLETE"  # set by the completion scripts


def complete(command: click.Command, *, hidden: bool = True) -> None:
    """Give a command and its subcommands the global options; may be called again."""
    taken = {name for parameter in command.params for name in parameter.opts}
    said: dict[str, Any] = {"expose_value": False, "callback": _apply, "hidden": hidden}
    for option in (
        click.Option(
            ["-H", "--host"],
            metavar="URL",
            help="Docker Engine to use, as DOCKER_HOST: unix:///path, tcp://host:port or ssh://user@host; or a NODE of "
            "the farm that is here, or in DOM0_FARM.",
            **said,
        ),
        click.Option(["-q", "--quiet"], is_flag=True, help="Print results and errors only.", **said),
        click.Option(["--no-color"], is_flag=True, help="No colours, as NO_COLOR.", **said),
    ):
        option.opts = [name for name in option.opts if name not in taken]  # a command's own of the same name wins
        if option.opts:
            command.params.append(option)
    # A paragraph of command lines is not rewrapped: a backspace character before it is click's own mark for that.
    command.help = cleandoc(command.help or "").replace("\n\n$ ", "\n\n\b\n$ ")
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            complete(subcommand)
            subcommand.short_help = subcommand.get_short_help_str(limit=200)  # which click would cut off in the list


def parse_time(text: str) -> float:
    """Seconds since the epoch, of a date and time (ISO 8601) or how long ago it was: `10m`. ValueError: it is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time.time() - seconds(text)


def _apply(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    match parameter.name:
        case "host" if value is not None:
            if value and "://" not in value and not ctx.resilient_parsing:
                from dom0.cli.node_engine import find_by_option  # a farm, which few commands are about

                value = find_by_option(value)
            os.environ["DOCKER_HOST"] = value  # so that docker, buildx and compose below us ask the same Engine
        case "quiet" if value:
            ctx.meta[terminal.QUIET] = True
        case "no_color":
            if value:
                os.environ["NO_COLOR"] = "1"
            if os.environ.get("NO_COLOR"):
                ctx.color = False
