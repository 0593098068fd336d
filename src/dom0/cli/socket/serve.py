"""`dom0 socket serve`: an Engine socket that shows and touches only what is made through it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from dom0 import log
from dom0.cli.socket.scopes import engine_socket
from dom0.errors import EngineUnreachable
from dom0.socketproxy import grants, registry
from dom0.socketproxy.context import Context
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.serve import serve as serve_socket
from dom0.socketproxy.upstream import Upstream


@click.command("serve")
@click.option("--scope", required=True, metavar="NAME", help="Whose objects it shows, and their names' first part.")
@click.option("--grants", "file", type=click.Path(path_type=Path), help="What the scope may do (YAML).")
@click.option("--listen", metavar="PATH", type=click.Path(path_type=Path), help="Where the socket is made.")
@click.option(
    "--cgroup-parent", metavar="GROUP", default="", help="Where its control group is made: /dom0, or dom0.slice."
)
def serve(scope: str, file: Path | None, listen: Path | None, cgroup_parent: str) -> None:
    """Serve the socket of a scope until SIGTERM or Ctrl-C; each refusal is a line of the log.

    Without --listen it is /run/dom0/scopes/NAME/docker.sock. Its containers are called NAME.… by the Engine, and
    stay when this ends.

    $ dom0 socket serve --scope guest --grants guest.yaml --listen /run/guest.sock
    $ docker -H unix:///run/guest.sock run -d --name web nginx
    """
    granted = grants.read(file) if file else grants.Grants()
    path = listen or registry.directory_of(scope) / "docker.sock"
    context = Context(Scope(scope), granted, Upstream(engine_socket()), str(path.absolute()))
    log.configure()
    asyncio.run(_serve(context, path, cgroup_parent))


async def _serve(context: Context, path: Path, cgroup_parent: str) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with serve_socket(context, path, cgroup_parent=cgroup_parent):
            click.echo(f"scope {context.scope.path}: {path}")
            await ended.wait()
    except Refused as refused:
        raise EngineUnreachable(refused.message, hint="dom0 doctor") from refused
