"""`dom0 dev`: a throw-away container with the home volume. This process makes the command and becomes docker."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from dom0.cli import engine_client
from dom0.errors import Dom0Error, UsageError
from dom0.names import HOME
from dom0.plan import labels
from dom0.run import become

DEV = "dev"  # plan.desired.Role.DEV, which would load half of plan/
_DASHES = "\0"  # stands for the first `--`, which click would drop: no argument can hold a NUL


class DevCommand(click.Command):
    """Keeps `--`: `dom0 dev -- make` runs make in the project's image."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            args[args.index("--")] = _DASHES
        return super().parse_args(ctx, args)


class HomeContainer(msgspec.Struct, frozen=True):
    """What the container `home-volume` says."""

    path: str  # in containers
    host_path: str
    user: str  # uid:gid
    dev_image: str
    dev_command: tuple[str, ...]


@click.command(name="dev", cls=DevCommand, context_settings={"allow_interspersed_args": False})
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="As docker run.")
@click.option("-p", "--publish", multiple=True, metavar="[HOST:]PORT", help="As docker run.")
@click.option("-v", "--volume", multiple=True, metavar="SOURCE:TARGET", help="As docker run.")
@click.option("--network", multiple=True, metavar="NETWORK", help="As docker run.")
@click.option("--name", metavar="NAME", help="As docker run.")
@click.option("-u", "--user", metavar="USER", help="As docker run; default: the owner of the home.")
@click.option("-w", "--workdir", metavar="DIR", help="As docker run; default: here if inside the home, else the home.")
@click.option("--entrypoint", metavar="COMMAND", help="As docker run.")
@click.argument("arguments", metavar="[IMAGE] [--] [COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...], **given: Any) -> None:
    """Run a throw-away container with your home, your terminal, your user, your directory.

    Without IMAGE it is the image that `x-dom0.dev` names, and -- comes before COMMAND. The container is removed at its
    end; what it wrote in the home stays.

    $ dom0 dev  # the project's development image
    $ dom0 dev -- make test  # a command in it
    $ dom0 dev debian:13 bash  # another image
    $ dom0 dev -p 8000:8000 -- python3 -m http.server
    """
    home = find_home()
    image, arguments = choose_image(arguments, home)
    # The empty label hides the one that a dom0 image carries: the agent would take the container for its own.
    marks = ("--label", f"{labels.ROLE}={DEV}", "--label", f"{labels.PROJECT}=")
    argv = ["docker", "run", "--rm", "--interactive", *marks]
    variables = ["LANG"]
    if sys.stdin.isatty() and sys.stdout.isatty():
        argv.append("--tty")
        variables += ["TERM", "COLORTERM"]
    argv += [word for name in variables if name in os.environ for word in ("--env", name)]
    if home is not None:
        argv += ["--volumes-from", HOME, "--user", home.user, "--env", f"HOME={home.path}"]
        argv += ["--workdir", directory_in_home(home)]
    for name, value in given.items():  # last, so that it wins
        values = value if isinstance(value, tuple) else (value,) if value is not None else ()
        argv += [word for one in values for word in (f"--{name}", one.replace(_DASHES, "--"))]
    become([*argv, image, *arguments])


def find_home() -> HomeContainer | None:
    """Ask the Engine for the home volume's container; None if this machine has no home."""
    found = engine_client.container(HOME)
    if found is None or not found.mounts:
        return None
    marks = found.config.labels or {}
    try:
        dev_command = msgspec.json.decode(marks.get(labels.DEV_COMMAND, "[]"), type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise Dom0Error(
            f"{HOME}: label {labels.DEV_COMMAND} is no list of words: {error}", hint="put it right: dom0 up"
        ) from error
    return HomeContainer(
        path=found.mounts[0].destination,
        host_path=found.mounts[0].source,
        user=found.config.user or "1000:1000",
        dev_image=marks.get(labels.DEV_IMAGE, ""),
        dev_command=dev_command,
    )


def choose_image(arguments: Sequence[str], home: HomeContainer | None) -> tuple[str, tuple[str, ...]]:
    if arguments and arguments[0] != _DASHES:
        image, *words = arguments
        words = words[1:] if words[:1] == [_DASHES] else words
        return image, tuple("--" if word == _DASHES else word for word in words)
    if home is None or not home.dev_image:
        raise UsageError(
            "dev: no IMAGE given, and no project that runs here names one",
            hint="name one: dom0 dev IMAGE; or set x-dom0.dev.image in compose.yaml and run dom0 up",
        )
    return home.dev_image, tuple(arguments[1:]) or home.dev_command


def directory_in_home(home: HomeContainer) -> str:
    """Where the caller's directory is in the container: the same place of the home, or the home itself."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return home.path
    for outside in (home.path, home.host_path):
        if here.is_relative_to(outside):
            return str(Path(home.path) / here.relative_to(outside))
    return home.path
