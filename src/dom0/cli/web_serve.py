"""`dom0 web-serve`: the page for devices of the network, on the socket that is its standard input."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
from pathlib import Path

import click

from dom0.names import WEB_USER

MEMORY = 512 << 20  # bytes
CAPABILITIES = 64  # more than there are
_PDEATHSIG, _CAPBSET_DROP = 1, 24  # <linux/prctl.h>


@click.command(name="web-serve", hidden=True)
@click.argument("agent", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
def command(agent: Path, names: tuple[str, ...]) -> None:
    """What the agent runs where x-dom0.web asks for it."""
    from dom0.web import network

    os.nice(5)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chdir(agent.parent)  # so it has the same name afterwards
    with socket.socket(fileno=0) as listening:
        asyncio.run(network.serve(listening, Path(agent.name), names, leave=_leave))


def _leave() -> None:
    """All of the machine but this directory, and every right. What is imported is imported by now."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # it forks nothing; for root this is no limit yet
    prctl = ctypes.CDLL(None).prctl
    os.chroot(".")
    os.chdir("/")
    for number in range(CAPABILITIES):
        prctl(_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups([])
    os.setresgid(WEB_USER, WEB_USER, WEB_USER)
    os.setresuid(WEB_USER, WEB_USER, WEB_USER)
    prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # which another user ID takes away
