"""`dom0 web-serve`: the page for devices of the network, on the socket that is its standard input."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from pathlib import Path

import click

MEMORY = 512 << 20  # bytes


@click.command(name="web-serve", hidden=True)
@click.argument("agent", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
def command(agent: Path, names: tuple[str, ...]) -> None:
    """What the agent runs where x-dom0.web asks for it."""
    from dom0.web import network

    os.nice(5)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with socket.socket(fileno=0) as listening:
        asyncio.run(network.serve(listening, agent, names))
