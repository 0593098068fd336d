"""`dom0 image serve`: what has been pulled here, for other machines."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING

import click

from dom0 import log, sizes
from dom0.cli.image_pull import PORT, own_depot, peers_option, read_address
from dom0.errors import Busy, UsageError
from dom0.names import MIRROR

if TYPE_CHECKING:
    from dom0.registry.listening import Network

OWN = f"127.0.0.1:{PORT}"


@click.command("serve", short_help="Give what was pulled here to other machines.")
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    default="",
    help=f"Where: 0.0.0.0:PORT is at all addresses that this machine has. Default: {OWN}, with --mirror {MIRROR}.",
)
@click.option(
    "--allow",
    metavar="NETWORK",
    multiple=True,
    help="Who may ask: an address, or as 192.168.1.0/24. Can be said several times; everybody if it is not.",
)
@click.option("--limit", metavar="SIZE", default="", help="At most so many bytes a second to all together, as 2m.")
@click.option("--mirror", is_flag=True, help="Be a mirror of docker.io for the Engine of this machine, too.")
@peers_option
def serve(listen: str, allow: tuple[str, ...], limit: str, mirror: bool, peers: tuple[str, ...]) -> None:
    """Give what dom0 image pull has fetched here to other machines (their --peer), until SIGTERM or Ctrl-C.

    By digest, and only what came without a login: everybody who reaches the port may read that, unless --allow says who
    may ask. What is on its way is given as well, as far as it has come.

    With --mirror, which is for this machine alone, docker pull, docker compose and builds get what is on docker.io as
    patiently as dom0 image pull does, once "registry-mirrors": ["http://127.0.0.1:15050"] is in the Engine's
    daemon.json; --peer is asked first. Where dom0 runs its agent does so then.

    $ dom0 image serve --listen 192.168.1.5:5050 --allow 192.168.1.0/24
    $ dom0 image serve --mirror
    """
    from dom0.registry.listening import read_networks

    listen = listen or (MIRROR if mirror else OWN)
    try:
        networks = read_networks(allow)
    except ValueError as error:
        raise UsageError(f"--allow: {error}", hint="as 192.168.1.0/24") from error
    try:
        rate = sizes.parse(limit) if limit else 0
    except ValueError as error:
        raise UsageError(f"--limit: {error}") from error
    if mirror and not _is_own(read_address(listen, "--listen")[0]):
        raise UsageError(
            f"--mirror, --listen: {listen}: others could have this machine fetch whatever they like",
            hint="let one serve others, and another one with --mirror listen at 127.0.0.1",
        )
    if peers and not mirror:
        raise UsageError("--peer: is for --mirror: without it nothing is fetched", hint="add --mirror, or leave it out")
    with _listening(listen) as opened:
        log.configure()
        asyncio.run(_serve(opened, networks, rate, peers if mirror else None))


def _is_own(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(text: str) -> socket.socket:
    from dom0.registry import listening

    address = read_address(text, "--listen")
    try:
        return listening.listen(*address)
    except UnicodeError as error:  # what IDNA says to some names
        raise UsageError(f"--listen: {text}: is no name of a host") from error
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        raise Busy(f"--listen: {text}: {why}", hint="who has it: ss -ltnp; choose another one") from error


async def _serve(
    listening: socket.socket, allow: Sequence[Network], rate: int, mirror_peers: tuple[str, ...] | None
) -> None:
    from dom0.registry import serve
    from dom0.registry.pull_through import pull_through

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    depot = own_depot()
    async with AsyncExitStack() as stack:
        mirror = None
        if mirror_peers is not None:
            mirror = (await stack.enter_async_context(pull_through(depot, mirror_peers))).answer
        await stack.enter_async_context(serve.serve(depot, listening, allow=allow, rate=rate, mirror=mirror))
        host, port = listening.getsockname()[:2]
        click.echo(f"{depot.root}: served at {f'[{host}]' if ':' in host else host}:{port}")
        await ended.wait()
