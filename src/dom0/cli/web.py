"""`dom0 web`: the machine as a page in a browser, through this command and for its time."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import webbrowser
from contextlib import suppress
from functools import partial

import click

from dom0 import terminal
from dom0.cli.client import THROUGH_ENGINE, Agent
from dom0.cli.places import agent_socket, is_here
from dom0.errors import Dom0Error, UsageError
from dom0.http import server
from dom0.http.channel import Streams
from dom0.http.client import Client
from dom0.names import Access
from dom0.run import dial_process
from dom0.web import page
from dom0.web.session import Sessions

HERE = "127.0.0.1"


@click.command(name="web")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=0,
    help="Of this machine; default: one that is free.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option(
    "--operate",
    is_flag=True,
    help="The page may go back, keep or end a change, restart, stop and start services, back up, and rewire.",
)
def command(port: int, no_browser: bool, operate: bool) -> None:
    """Show this machine as a page in a browser, until Ctrl-C. The page changes nothing, unless you say --operate.

    It is served on 127.0.0.1 by this command; on the machine that it shows no port is opened. The address works once:
    when it was used, the next one is printed.

    $ dom0 web
    $ dom0 web --operate
    $ dom0 -H ssh://me@server web   # another machine, through your ssh
    """
    Agent(patient=False).status()  # or says why there is none
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    opens = has_screen and not no_browser  # else it would open in the terminal
    asyncio.run(_serve(port, Access.OPERATE if operate else Access.VIEW, opens=opens))


async def _serve(port: int, access: Access, *, opens: bool) -> None:
    elsewhere = Elsewhere(access)
    here = partial(asyncio.open_unix_connection, agent_socket(access))
    sessions, agent = Sessions(), Client(here if is_here() else elsewhere.connect, "dom0")
    with _listen(port) as listening:
        address = f"http://{HERE}:{listening.getsockname()[1]}/#"

        def show() -> None:
            terminal.say(f"{address}{sessions.code}")

        operates = access is Access.OPERATE
        handler = page.handler(agent, sessions, command=command_to_copy(), opened=show, operates=operates)
        try:
            async with server.serve(handler, listening):
                async with agent.ask("GET", "/v1/status"):
                    pass
                show()
                terminal.say_progress("open it in a browser of this machine; Ctrl-C ends it")
                if opens:
                    await asyncio.to_thread(webbrowser.open, f"{address}{sessions.code}")
                await asyncio.Event().wait()
        except (FileNotFoundError, ConnectionError) as error:
            hint = "the running dom0 is older than this command: dom0 up"
            raise Dom0Error(f"web: the running dom0 cannot be looked at: {error}", hint=hint) from error
        finally:
            await agent.close()
            elsewhere.forget_closed()


def _listen(port: int) -> socket.socket:
    """Raises UsageError."""
    try:
        return socket.create_server((HERE, port))
    except OSError as error:
        raise UsageError(f"web: port {port} of {HERE}: {error.strerror}", hint="leave --port out") from error


class Elsewhere:
    """Connections to the agent of another machine, each through a program of its own: docker, and ssh below it."""

    def __init__(self, access: Access) -> None:
        self._argv = (*THROUGH_ENGINE, f"--{access.name.lower()}")
        self._programs: dict[int, socket.socket] = {}  # by process ID

    async def connect(self) -> Streams:
        self.forget_closed()
        connection, program = dial_process(self._argv, stderr=False)
        self._programs[program] = connection
        return await asyncio.open_unix_connection(sock=connection)

    def forget_closed(self) -> None:
        """End the programs of connections that are closed: one that waits for a silent Engine does not notice. None
        stays a zombie for as long as the page is open.
        """
        for program, connection in list(self._programs.items()):
            with suppress(ChildProcessError):  # who has started us ignores SIGCHLD
                if not os.waitpid(program, os.WNOHANG)[0]:
                    if connection.fileno() == -1:
                        os.kill(program, signal.SIGTERM)
                    continue
            del self._programs[program]


def command_to_copy() -> str:
    """What asks the same machine, in another terminal of whoever has called us."""
    if is_here():
        return "dom0"
    if host := os.environ.get("DOCKER_HOST"):
        return f"dom0 -H {shlex.quote(host)}"
    context = os.environ.get("DOCKER_CONTEXT")  # else it is the one that `docker context use` has chosen
    return f"DOCKER_CONTEXT={shlex.quote(context)} dom0" if context else "dom0"
