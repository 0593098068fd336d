"""`dom0 farm serve`: the server of a farm."""

from __future__ import annotations

import asyncio
import signal
import socket

import click
import msgspec

from dom0 import log, terminal
from dom0.cli.farm.farm_option import farm_option
from dom0.errors import Busy
from dom0.farm import pin
from dom0.farm.directory import FarmDirectory

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 -- compared, not bound


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it, once it answers."""

    name: str
    address: str
    join: str  # what a machine is told


@click.command("serve", short_help="Answer the machines of a farm.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="A line with an object, once it answers: name, address, join.")
def serve(farm: FarmDirectory, as_json: bool) -> None:
    """Answer the machines of a farm, until SIGTERM or Ctrl-C.

    Prints what machines join with: the address and the fingerprint of the server. Nodes need it only to join: what they
    run goes on without it.

    $ dom0 farm serve --dir attic
    """
    settings = farm.settings()
    host, port = settings.address
    shown = pin.Pin(_reachable(host), port, pin.fingerprint(farm.server_pem))
    with _listening(host, port) as listening:
        log.configure()
        served = Served(name=settings.name, address=settings.listen, join=str(shown))
        asyncio.run(_serve(farm, listening, served, as_json))


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        hint = "who has it: ss -ltnp; another one: listen in farm.yaml"
        raise Busy(f"farm.yaml: listen: {host}:{port}: {why}", hint=hint) from error


def _reachable(host: str) -> str:
    """For every address of this machine the one that it leaves by; its name where it has no way out."""
    if host not in _WILDCARDS:
        return host
    family, other = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((other, 9))  # sends nothing
            return str(asked.getsockname()[0])
        except OSError:
            return socket.gethostname()


async def _serve(farm: FarmDirectory, listening: socket.socket, served: Served, as_json: bool) -> None:
    from dom0.farm import serve

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with serve.serve(farm, listening):
        if as_json:
            terminal.say_json_line(served)
        else:
            terminal.say(f"{served.name}: answers at {served.address}; on a machine: dom0 farm join {served.join}")
        await ended.wait()
