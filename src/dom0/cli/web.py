"""`dom0 web`: the machine as a page in a browser, through this command and for its time."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import webbrowser
from contextlib import suppress
from functools import partial
from urllib.parse import quote

import click

from dom0 import terminal, times
from dom0.agent.device_status import NAME, Devices, Invitation, PairRequest
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


def _go_to(_ctx: click.Context, _parameter: click.Parameter, host: str | None) -> None:
    if host is not None:
        os.environ["DOCKER_HOST"] = host if "://" in host else f"ssh://{host}"


@click.group(name="web", invoke_without_command=True)
@click.pass_context
@click.option(
    "--on",
    metavar="HOST",
    expose_value=False,
    callback=_go_to,
    help="Another machine, through your ssh: as -H ssh://HOST.",
)
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
def command(ctx: click.Context, port: int, no_browser: bool, operate: bool) -> None:
    """Show this machine as a page in a browser, until Ctrl-C. The page changes nothing, unless you say --operate.

    It is served on 127.0.0.1 by this command; on the machine that it shows no port is opened. The address works once:
    when it was used, the next one is printed. With x-dom0.web the machine itself has the page on the network, for
    devices that you pair.

    $ dom0 web
    $ dom0 web --operate
    $ dom0 web --on me@server   # another machine, through your ssh
    $ dom0 web pair phone       # a device of your network, where x-dom0.web asks for it
    """
    if ctx.invoked_subcommand is not None:
        return
    Agent(patient=False).status()  # or says why there is none
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    opens = has_screen and not no_browser  # else it would open in the terminal
    asyncio.run(_serve(port, Access.OPERATE if operate else Access.VIEW, opens=opens))


@command.command(name="pair")
@click.argument("name")
@click.option("--operate", is_flag=True, help="The device may do what `dom0 web --operate` may; else it only looks.")
@click.option("--json", "as_json", is_flag=True, help="An object with address, fingerprint, code and until.")
def pair(name: str, operate: bool, as_json: bool) -> None:
    """Let one more device look at this machine, by a code that works once and for five minutes.

    NAME is what you call the device: small letters, digits, - and _. A code that was not used is dead when the next
    one is printed. Exit codes: 0, and 2 where x-dom0.web does not ask for it or a device has the name.

    $ dom0 web pair phone
    $ dom0 web pair tablet --operate
    """
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name}: cannot be the name of a device", hint="small letters, digits, - and _, at most 31")
    asked = PairRequest(name=name, operates=operate)
    made = Agent().call("POST", "/v1/devices/pair", Invitation, body=asked)
    may = "look at this machine, and change it as `dom0 web --operate` may" if operate else "look at this machine"
    lines = (
        f"address      {made.address}",
        f"certificate  SHA-256 {made.fingerprint}",
        f"code         {made.code}, once, until {times.moment(made.until)}",
        "",
        f"Open the address on {made.name}. The browser warns of the certificate, as only this machine has signed it:",
        "let it show the fingerprint, and compare. If that is another one, somebody else answers there: stop.",
        f"Then type the code. Whoever types it first may {may}.",
    )
    terminal.say_result(made, *lines, as_json=as_json)


@command.command(name="devices")
@click.option("--json", "as_json", is_flag=True, help="An object with address, fingerprint and devices.")
def devices(as_json: bool) -> None:
    """List the devices that may look at this machine over the network, and what they may.

    $ dom0 web devices
    """
    found = Agent().call("GET", "/v1/devices", Devices)
    rows = (
        (one.name, "operate" if one.operates else "look", times.moment(one.paired), times.moment(one.seen), one.address)
        for one in found.devices
    )
    heads = ("NAME", "MAY", "PAIRED", "SEEN", "FROM")
    terminal.say_table(found, heads, rows, as_json=as_json)
    if found.address and not as_json:
        terminal.say(f"\n{found.address} has the certificate SHA-256 {found.fingerprint}")


@command.command(name="revoke")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="What is left: as `web devices` lists it.")
def revoke(name: str, as_json: bool) -> None:
    """Let a device look no more: it is out at once, also of what it looks at now.

    A code that was printed for it and not used is dead. Exit codes: 0, and 2 where no device has the name.

    $ dom0 web revoke phone
    """
    left = Agent().call("POST", f"/v1/devices/{quote(name, safe='')}/revoke", Devices, body={})
    terminal.say_done(left, f"revoked  {name}", as_json=as_json)


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
        what = os.strerror(error.errno or 0)  # strerror has the address once more
        raise UsageError(f"web: port {port} of {HERE}: {what}", hint="leave --port out") from error


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
