"""`dom0 agent`: the root container's process. Not for people."""

from __future__ import annotations

import os
import selectors
import socket
from pathlib import Path

import click

from dom0.cli import fastpath
from dom0.cli.client import Agent
from dom0.cli.places import agent_socket
from dom0.http import blocking
from dom0.names import Access

_PIECE = 1 << 16  # bytes


@click.command("agent", hidden=True)
@click.option("--check", is_flag=True, help="Ask the running agent whether it answers (the image's health check).")
@click.option("--dial", is_flag=True, help="Connect standard input and output with the running agent's socket.")
@click.option("--view", is_flag=True, help="With --dial: the socket that changes nothing.")
@click.option("--operate", is_flag=True, help="With --dial: the socket for what a page may do.")
@click.option("--read-as", type=click.Path(path_type=Path), help="Refuse this image's project where it is another one.")
def command(check: bool, dial: bool, view: bool, operate: bool, read_as: Path | None) -> None:
    """Run the agent, or --check the running one, or --dial it.

    Example: dom0 agent --check
    """
    if dial:
        access = Access.VIEW if view else Access.OPERATE if operate else Access.ALL
        _connect_with(blocking.connect(str(agent_socket(access))))
        return
    if check:
        Agent(patient=False).status()
        return
    if read_as:
        import asyncio

        from dom0.images import second_reading

        asyncio.run(second_reading.read_as(read_as.read_bytes()))
        return
    fastpath.run_agent()


def _connect_with(agent: socket.socket) -> None:
    """Until the agent has answered, or the caller has closed standard input."""
    with selectors.DefaultSelector() as ready:
        ready.register(agent, selectors.EVENT_READ, (agent.fileno(), 1))
        ready.register(0, selectors.EVENT_READ, (0, agent.fileno()))
        while True:
            for key, _ in ready.select():
                source, target = key.data
                if not (data := os.read(source, _PIECE)):
                    return
                while data:
                    data = data[os.write(target, data) :]
