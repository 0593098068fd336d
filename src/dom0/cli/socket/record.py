"""`dom0 socket record`: the smallest grants that a run needs, by letting it do all that can be granted."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click

from dom0 import log, terminal
from dom0.cli.socket.scopes import engine_socket
from dom0.errors import EngineUnreachable
from dom0.run import beside_result
from dom0.socketproxy import partial, registrations
from dom0.socketproxy.context import Context
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.record import Recording
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.serve import serve as serve_socket
from dom0.socketproxy.upstream import Upstream

TERMINATED = 143


@click.command("record", context_settings={"allow_interspersed_args": False})
@click.option("--scope", default="record", show_default=True, metavar="NAME", help="As `dom0 socket serve`.")
@click.option("--listen", metavar="PATH", type=click.Path(path_type=Path), help="As `dom0 socket serve`.")
@click.option("--json", "as_json", is_flag=True, help="An object: the grants, as a file of them has them.")
@click.argument("arguments", metavar="[COMMAND [ARG]...]", nargs=-1, type=click.UNPROCESSED)
def record(scope: str, listen: Path | None, as_json: bool, arguments: tuple[str, ...]) -> int:
    """Serve a scope whose socket allows all that can be granted, and print the smallest grants that it took (YAML).

    COMMAND finds the socket in DOCKER_HOST; what it prints goes to standard error, and the exit code is its own.
    Without COMMAND the socket is served until Ctrl-C. What no grant allows is refused as always, with a line of the
    log. What was made stays, with names NAME.… in the Engine. For runs that you trust: they may do all that can be
    granted.

    $ dom0 socket record -- docker compose up --detach --wait > guest.yaml
    $ dom0 socket rm record --volumes
    $ dom0 socket serve --scope guest --grants guest.yaml
    """
    path = (listen or registrations.directory_of(scope) / "docker.sock").absolute()
    recording = Recording()
    context = Context(Scope(scope), Grants(), Upstream(engine_socket()), str(path), observe=recording.observe)
    log.configure()
    code = asyncio.run(_serve(context, path, arguments))
    terminal.say_result(recording.needed, "\n".join(partial.lines(recording.needed)) or "{}", as_json=as_json)
    return code


async def _serve(context: Context, path: Path, argv: tuple[str, ...]) -> int:
    """Until `argv` has ended, or a signal comes. Returns the exit code. Raises Dom0Error, OSError."""
    loop = asyncio.get_running_loop()
    try:
        async with serve_socket(context, path):
            if not argv:
                terminal.say_progress(f"scope {context.scope.path}: {path}; Ctrl-C ends it")
            environment = {key: value for key, value in os.environ.items() if key != "DOCKER_CONTEXT"}
            environment |= {"DOCKER_HOST": f"unix://{path}", "DOCKER_BUILDKIT": "0"}
            run = loop.create_task(beside_result(argv, env=environment) if argv else asyncio.Event().wait())
            loop.add_signal_handler(signal.SIGTERM, run.cancel)
            loop.add_signal_handler(signal.SIGINT, _leave_to_command if argv else run.cancel)
            try:
                return await run
            except asyncio.CancelledError:
                return TERMINATED if argv else 0
    except Refused as refused:
        raise EngineUnreachable(f"{context.upstream.socket}: {refused.message}", hint="dom0 doctor") from refused


def _leave_to_command() -> None:
    """The terminal sends Ctrl-C to both."""
