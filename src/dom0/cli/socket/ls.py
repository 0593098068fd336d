"""`dom0 socket ls`: who has an Engine socket of its own on this host."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from dom0 import terminal, times

if TYPE_CHECKING:
    from dom0.cli.socket.scopes import Shown


@click.command("ls")
@click.option("--json", "as_json", is_flag=True, help="A list of the objects that `dom0 socket show` prints.")
def ls(as_json: bool) -> None:
    """List the scopes of this host: their sockets, who serves them, their containers and memory.

    A scope is `not served` when its server was killed: its containers stay, its socket is dead.

    $ dom0 socket ls
    """
    from dom0.cli.socket import scopes
    from dom0.socketproxy import registrations

    scopes.engine_socket()
    found = asyncio.run(scopes.all_shown())
    unserved = sorted(
        set(registrations.known(registrations.SOCKET, registrations.FAILED)) - {one.scope for one in found}
    )
    for error in map(registrations.unserved, unserved):
        terminal.say_progress(f"{error.message}; {error.hint}")
    if not found and not as_json:
        if not unserved:
            terminal.say_progress("no scope is served here; dom0 socket serve --scope guest")
        return
    rows = []
    for one in found:
        usage, limit = one.usage, one.grants["memory"]
        containers = f"{usage.containers}, {usage.running} run" if usage else "?"
        used = terminal.size(usage.kernel.memory) if usage and usage.kernel else "?"
        memory = used if limit is None else f"{used} of {limit}"
        rows.append((one.scope, served(one), containers, memory, str(one.refusals), one.socket))
    heads = ("SCOPE", "SERVED", "CONTAINERS", "MEMORY", "REFUSALS", "SOCKET")
    terminal.say_table(found, heads, rows, as_json=as_json)


def served(scope: Shown) -> str:
    if not scope.served:
        return "not served"
    return f"{f'by {scope.pid} ' if scope.pid else ''}for {times.ago(time.time() - scope.since)}"
