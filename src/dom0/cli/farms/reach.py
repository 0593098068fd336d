"""`dom0 farm exec` and `logs`: a node of a farm, from the machine of its server."""

from __future__ import annotations

import os
from typing import Any

import click

from dom0.cli import exec as exec_
from dom0.cli import logs as logs_
from dom0.cli.farms.farm_option import farm_option
from dom0.cli.node_engine import find_engine
from dom0.errors import UsageError
from dom0.farms.directory import FarmDirectory
from dom0.names import ROOT

node_argument = click.argument("name", metavar="NODE")


@click.command("exec", short_help="Run a command on a node.", context_settings={"allow_interspersed_args": False})
@exec_.with_options
@farm_option
@node_argument
@click.argument("arguments", metavar="[--] COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(name: str, arguments: tuple[str, ...], farm: FarmDirectory, **given: Any) -> None:
    """Run a command in the root container of NODE, from the machine of the farm's server, by whoever serves there.

    In a service of it: dom0 -H NODE exec SERVICE COMMAND, which is so with any command.

    $ dom0 farm exec nas -- dom0 status
    $ dom0 -H nas exec redis redis-cli ping
    """
    arguments = arguments[arguments[0] == "--" :]
    if not arguments:
        raise UsageError("farm exec: COMMAND is missing", hint="dom0 farm exec NODE -- COMMAND")
    os.environ["DOCKER_HOST"] = find_engine(farm, name)
    exec_.become_docker(ROOT, arguments, **given)


@click.command("logs", short_help="Show what services of a node print.")
@farm_option
@node_argument
@click.pass_context
def logs(ctx: click.Context, /, name: str, farm: FarmDirectory, **given: Any) -> None:
    """Show what services print on NODE, as dom0 logs does: all of them together, or each SERVICE.

    $ dom0 farm logs nas
    $ dom0 farm logs -f --tail 20 nas redis dom0
    """
    os.environ["DOCKER_HOST"] = find_engine(farm, name)
    ctx.invoke(logs_.command, **given)


logs.params += [one for one in logs_.command.params if one.expose_value]
