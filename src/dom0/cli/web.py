"""`dom0 web`: the machine as a page in a browser, through this command and for its time."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import webbrowser
from contextlib import suppress

import click

from dom0 import terminal
from dom0.cli.client import THROUGH_ENGINE, Agent
from dom0.cli.places import is_here, view_socket
from dom0.errors import Dom0Error, UsageError
from dom0.http import server
from dom0.http.channel import Streams
from dom0.http.client import Client
from dom0.run import dial
from dom0.web import page
from dom0.web.session import Sessions

HERE = "127.0.0.1"


@click.command(name="web")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of this machine; default: one that is free.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def command(port: int, no_browser: bool) -> None:
    """Show this machine as a page in a browser, until Ctrl-C. The page changes nothing.

    It is served on 127.0.0.1 by this command; on the machine that it shows no port is opened. The address works once:
    when it was used, the next one is printed.

    $ dom0 web
    $ dom0 -H ssh://me@server web   # another machine, through your ssh
    """
    Agent(patient=False).status()  # or says why there is none
    asyncio.run(_serve(port, opens=not no_browser and _has_screen()))


async def _serve(port: int, *, opens: bool) -> None:
    sessions, agent = Sessions(), Client(_connect_here if is_here() else _connect_elsewhere, "dom0")
    with _listen(port) as listening:
        address = f"http://{HERE}:{listening.getsockname()[1]}/#"

        def show() -> None:
            terminal.say(f"{address}{sessions.code}")

        handler = page.handler(agent, sessions, command=_command(), opened=show)
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


def _listen(port: int) -> socket.socket:
    """Raises UsageError."""
    try:
        return socket.create_server((HERE, port))
    except OSError as error:
        raise UsageError(f"web: port {port} of {HERE}: {error.strerror}", hint="leave --port out") from error


async def _connect_here() -> Streams:
    return await asyncio.open_unix_connection(view_socket())


async def _connect_elsewhere() -> Streams:
    _forget_ended()
    return await asyncio.open_unix_connection(sock=dial((*THROUGH_ENGINE, "--view"), stderr=False))


def _forget_ended() -> None:
    """Programs of connections that are over, so that none stays a zombie for as long as the page is open."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _command() -> str:
    """What asks the same machine."""
    return "dom0" if is_here() else f"dom0 -H {shlex.quote(os.environ.get('DOCKER_HOST', ''))}"


def _has_screen() -> bool:
    """Without one a browser would open in the terminal."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
