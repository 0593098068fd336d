"""`dom0 socket serve`: an Engine socket that shows and touches only what is made through it."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any

import click

from dom0 import log
from dom0.cli.socket.scopes import engine_socket
from dom0.errors import Dom0Error, EngineUnreachable, UsageError
from dom0.socketproxy import grants, hold, registrations
from dom0.socketproxy.context import Context
from dom0.socketproxy.kept import stay_kept
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.serve import serve as serve_socket
from dom0.socketproxy.upstream import Upstream

HOLDER_WITHIN = 5.0  # seconds, for it to answer
PAUSE = 0.1  # seconds between two tries


@click.command("serve")
@click.option("--scope", required=True, metavar="NAME", help="Whose objects it shows, and their names' first part.")
@click.option("--grants", "file", type=click.Path(path_type=Path), help="What the scope may do (YAML).")
@click.option("--listen", metavar="PATH", type=click.Path(path_type=Path), help="Where the socket is made.")
@click.option(
    "--cgroup-parent", metavar="GROUP", default="", help="Where its control group is made: /dom0, or dom0.slice."
)
@click.option(
    "--holder",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Take the socket DIRECTORY/NAME/docker.sock from `dom0 socket hold DIRECTORY`.",
)
def serve(scope: str, file: Path | None, listen: Path | None, cgroup_parent: str, holder: Path | None) -> None:
    """Serve the socket of a scope until SIGTERM or Ctrl-C; each refusal is a line of the log.

    Without --listen it is /run/dom0/scopes/NAME/docker.sock. Its containers are called NAME.… by the Engine, and
    stay when this ends. The socket goes with it, unless it is another process's: that of --holder, or of systemd (a
    .socket unit). With such a one requests that are under way have 10 seconds to end.

    $ dom0 socket serve --scope guest --grants guest.yaml --listen /run/guest.sock
    $ docker -H unix:///run/guest.sock run -d --name web nginx
    """
    named = Scope(scope)
    try:
        if holder and listen:
            raise UsageError("--listen, --holder: the holder's socket has its place", hint="leave one of them out")
        kept: socket.socket | None
        if holder:
            kept, path = _held(holder, scope), holder / scope / "docker.sock"
        else:
            kept, own = hold.inherited(), registrations.directory_of(scope) / "docker.sock"
            path = listen or (Path(kept.getsockname()) if kept else own)
        granted = grants.read(file) if file else grants.Grants()
        context = Context(named, granted, Upstream(engine_socket()), str(path.absolute()))
        log.configure()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection takes up to ten
        asyncio.run(_serve(context, path, cgroup_parent, kept, holder))
    except Dom0Error as error:
        registrations.note_failure(scope, error.message, error.hint)
        raise
    except OSError as error:
        registrations.note_failure(scope, str(error), "")
        raise


async def _serve(
    context: Context, path: Path, cgroup_parent: str, kept: socket.socket | None, holder: Path | None
) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with serve_socket(context, path, cgroup_parent=cgroup_parent, kept=kept):
            click.echo(f"scope {context.scope.path}: {path}")
            ends: list[asyncio.Task[Any]] = [asyncio.create_task(ended.wait())]
            if holder and kept:
                ends.append(asyncio.create_task(stay_kept(holder, context.scope.name, kept)))
            done, others = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            for task in done:
                task.result()
    except Refused as refused:
        raise EngineUnreachable(refused.message, hint="dom0 doctor") from refused


def _held(holder: Path, scope: str) -> socket.socket:
    """At a boot the Engine may start the holder after us. Raises Dom0Error."""
    deadline = time.monotonic() + HOLDER_WITHIN
    while True:
        try:
            return hold.hold(holder, scope)
        except Dom0Error:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)
