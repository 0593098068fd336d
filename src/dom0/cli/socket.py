"""`dom0 socket`: an Engine socket that shows and touches only what is made through it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click

from dom0 import log, names
from dom0.engine import address
from dom0.errors import EngineUnreachable, UsageError
from dom0.socketproxy import grants
from dom0.socketproxy.context import Context
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.serve import serve as serve_socket
from dom0.socketproxy.upstream import Upstream


@click.group("socket")
def command() -> None:
    """Give a container an Engine socket of its own, with limits.

    $ dom0 socket serve --scope guest --grants guest.yaml
    """


@command.command("serve")
@click.option("--scope", required=True, metavar="NAME", help="Whose objects it shows, and their names' first part.")
@click.option("--grants", "file", type=click.Path(path_type=Path), help="What the scope may do (YAML).")
@click.option("--listen", metavar="PATH", type=click.Path(path_type=Path), help="Where the socket is made.")
def serve(scope: str, file: Path | None, listen: Path | None) -> None:
    """Serve the socket of a scope until SIGTERM or Ctrl-C; each refusal is a line of the log.

    Without --listen it is /run/dom0/scopes/NAME/docker.sock. Its containers are called NAME.… by the Engine, and
    stay when this ends.

    $ dom0 socket serve --scope guest --grants guest.yaml --listen /run/guest.sock
    $ docker -H unix:///run/guest.sock run -d --name web nginx
    """
    granted = grants.read(file) if file else grants.Grants()
    path = listen or names.run_directory() / "scopes" / scope / "docker.sock"
    context = Context(Scope(scope), granted, Upstream(_engine_socket()), str(path.absolute()))
    log.configure()
    asyncio.run(_serve(context, path))


def _engine_socket() -> str:
    """Raises EngineUnreachable, UsageError."""
    found = address.find(None, os.environ, Path.home())
    if not found.socket:
        raise UsageError(
            f"{found.text}: only the socket of an Engine on this host can be scoped",
            hint="run it there, or set DOCKER_HOST=unix:///path/to/docker.sock",
        )
    return found.socket


async def _serve(context: Context, path: Path) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with serve_socket(context, path):
            click.echo(f"scope {context.scope.path}: {path}")
            await ended.wait()
    except Refused as refused:
        raise EngineUnreachable(refused.message, hint="dom0 doctor") from refused
