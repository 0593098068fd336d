"""`dom0 farm exec` and `logs`, and `dom0 -H NODE`: a node of a farm, from the machine of its server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from dom0.cli import exec as exec_
from dom0.cli import logs as logs_
from dom0.cli.farms.farm_option import VARIABLE, farm_option
from dom0.errors import Dom0Error, ProjectError, UsageError
from dom0.farms.directory import FarmDirectory
from dom0.http import blocking
from dom0.names import ROOT

ANSWER_WITHIN = 30.0  # seconds
node_argument = click.argument("name", metavar="NODE")


class Reached(msgspec.Struct):
    """What the server answers: a socket, or why there is none."""

    socket: str = ""
    message: str = ""
    hint: str = ""


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


def engine_of(name: str) -> str:
    """For `-H NAME`. Raises UsageError, Dom0Error."""
    try:
        return find_engine(FarmDirectory(Path(os.environ.get(VARIABLE) or ".")), name)
    except ProjectError as error:
        what = f"-H {name}: is no address of an Engine, and of no farm's node: {error.message}"
        hint = f"unix:///path, tcp://host:port or ssh://user@host; a node, on its server: {VARIABLE}=DIR dom0 -H NODE"
        raise UsageError(what, hint=hint) from error


def find_engine(farm: FarmDirectory, name: str) -> str:
    """The node's Engine, as DOCKER_HOST has it. Raises UsageError for no node of the farm, Dom0Error."""
    settings = farm.settings()
    farm.nodes().named(name)
    try:
        connection = blocking.connect(os.path.realpath(farm.reach / "server.sock"), timeout=ANSWER_WITHIN)
        with blocking.ask(connection, "POST", f"/nodes/{quote(name)}", timeout=ANSWER_WITHIN) as answer:
            found = msgspec.json.decode(answer.read(), type=Reached)
    except PermissionError as error:
        raise Dom0Error(
            f"{name}: nodes are reached by the user who serves the farm", hint="as that user, or as root"
        ) from error
    except (OSError, msgspec.DecodeError) as error:
        what = f"{name}: cannot be reached: the server of {settings.name} does not run on this machine"
        raise Dom0Error(what, hint=f"here, where it runs; or start it: dom0 farm serve --dir {farm.path}") from error
    if not found.socket:
        raise Dom0Error(found.message, hint=found.hint)
    return f"unix://{found.socket}"
