"""`dom0 image serve`: what has been pulled here, for other machines."""

from __future__ import annotations

import asyncio
import signal
import socket

import click

from dom0 import log, sizes
from dom0.cli.image_pull import PORT, own_depot, read_address
from dom0.errors import Busy, UsageError


@click.command("serve")
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default=f"127.0.0.1:{PORT}",
    show_default=True,
    help="Where: 0.0.0.0:PORT is for everybody who reaches this machine.",
)
@click.option("--limit", metavar="SIZE", default="", help="At most so many bytes a second to all together, as 2m.")
def serve(listen: str, limit: str) -> None:
    """Give what dom0 image pull has fetched here to other machines (their --peer), until SIGTERM or Ctrl-C.

    By digest, and only what came without a login: everybody who reaches the port may read that. What is on its way is
    given as well, as far as it has come.

    $ dom0 image serve --listen 192.168.1.5:5050
    """
    try:
        rate = sizes.parse(limit) if limit else 0
    except ValueError as error:
        raise UsageError(f"--limit: {error}") from error
    with _listening(listen) as listening:
        log.configure()
        asyncio.run(_serve(listening, rate))


def _listening(text: str) -> socket.socket:
    address = read_address(text, "--listen")
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server(address, family=family)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        raise Busy(f"--listen: {text}: {why}", hint="who has it: ss -ltnp; choose another one") from error


async def _serve(listening: socket.socket, rate: int) -> None:
    from dom0.registry import serve

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    depot = own_depot()
    async with serve.serve(depot, listening, rate=rate):
        host, port = listening.getsockname()[:2]
        click.echo(f"{depot.root}: served at {f'[{host}]' if ':' in host else host}:{port}")
        await ended.wait()
