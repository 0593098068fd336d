"""`dom0 socket serve`: an Engine socket that shows and touches only what is made through it."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from dom0 import log
from dom0.cli.socket.scopes import engine_socket
from dom0.errors import Dom0Error, EngineUnreachable, UsageError
from dom0.socketproxy import grants, hold, registrations, together
from dom0.socketproxy.context import Context
from dom0.socketproxy.kept import held, stay_kept
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.serve import serve as serve_socket
from dom0.socketproxy.splice import event_loop
from dom0.socketproxy.upstream import Upstream


@click.command("serve")
@click.option("--scope", metavar="NAME", help="Whose objects it shows, and their names' first part.")
@click.option("--grants", "file", metavar="FILE", type=click.Path(path_type=Path), help="What the scope may do (YAML).")
@click.option("--listen", metavar="PATH", type=click.Path(path_type=Path), help="Where the socket is made.")
@click.option(
    "--scopes",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Serve a scope for each file NAME.yaml there, with these grants; SIGHUP has them read again.",
)
@click.option(
    "--cgroup-parent", metavar="GROUP", default="", help="Where its control group is made: /dom0, or dom0.slice."
)
@click.option(
    "--holder",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Take the socket DIRECTORY/NAME/docker.sock from `dom0 socket hold DIRECTORY`.",
)
def serve(
    scope: str | None,
    file: Path | None,
    listen: Path | None,
    scopes: Path | None,
    cgroup_parent: str,
    holder: Path | None,
) -> None:
    """Serve the socket of a scope, or of several, until SIGTERM or Ctrl-C; each refusal is a line of the log.

    Without --listen it is /run/dom0/scopes/NAME/docker.sock. Its containers are called NAME.… by the Engine, and
    stay when this ends. The socket goes with it, unless it is another process's: that of --holder, or of systemd (a
    .socket unit). With such a one requests that are under way have 10 seconds to end.

    $ dom0 socket serve --scope guest --grants guest.yaml --listen /run/guest.sock
    $ docker -H unix:///run/guest.sock run -d --name web nginx
    """
    if (scope is None) == (scopes is None):
        raise UsageError("--scope, --scopes: it takes one of them", hint="dom0 socket serve --scope guest")
    if scopes and (file or listen):
        raise UsageError("--scopes: the files say the grants, and each socket has its place", hint="leave the rest out")
    if holder and listen:
        raise UsageError("--listen, --holder: the holder's socket has its place", hint="leave one of them out")
    if scopes:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a handler: the files are read after that
        together.check(scopes)
        _run(_serve_together(scopes.absolute(), cgroup_parent, holder and holder.absolute()))
        return
    assert scope is not None
    try:
        kept: socket.socket | None
        named = Scope(scope)
        if holder:
            kept, path = asyncio.run(held(holder, scope)), holder / scope / registrations.SOCKET
        else:
            kept, own = hold.inherited(), registrations.directory_of(scope) / registrations.SOCKET
            path = listen or (Path(kept.getsockname()) if kept else own)
        granted = grants.read(file) if file else grants.Grants()
        context = Context(named, granted, Upstream(engine_socket()), str(path.absolute()))
        _run(_serve(context, path, cgroup_parent, kept, holder))
    except Dom0Error as error:
        registrations.note_failure(scope, error.message, error.hint)
        raise
    except OSError as error:
        registrations.note_failure(scope, str(error), "")
        raise


def _run(serving: Coroutine[None, None, None]) -> None:
    log.configure()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection takes up to ten
    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(serving)


async def _serve_together(directory: Path, cgroup_parent: str, holder: Path | None) -> None:
    async def run(one: together.Serving, path: Path, kept: socket.socket) -> None:
        context = Context(Scope(one.scope), one.grants, Upstream(engine_socket()), str(path))
        await _serve(context, path, cgroup_parent, kept, holder, one)

    ended = _signalled()
    served = together.Together(directory, holder, run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, served.follow)
    served.follow()
    await ended.wait()
    await served.end()


def _signalled() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


async def _serve(
    context: Context,
    path: Path,
    cgroup_parent: str,
    kept: socket.socket | None,
    holder: Path | None,
    one: together.Serving | None = None,
) -> None:
    """Until that `one` is ended, or by a signal. Raises Dom0Error, OSError."""
    ended = one.ended if one else _signalled()
    try:
        is_wanted = one.is_wanted if one else lambda: True
        async with serve_socket(context, path, cgroup_parent=cgroup_parent, kept=kept, is_wanted=is_wanted):
            click.echo(f"scope {context.scope.path}: {path}")
            if one:
                one.answers.set()
            ends: list[asyncio.Task[Any]] = [asyncio.create_task(ended.wait())]
            if holder and kept:
                ends.append(asyncio.create_task(stay_kept(holder, context.scope.name, kept)))
            done, others = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            for task in done:
                task.result()
    except Refused as refused:
        raise EngineUnreachable(f"{context.upstream.socket}: {refused.message}", hint="dom0 doctor") from refused
