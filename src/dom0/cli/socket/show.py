"""`dom0 socket show`: what one scope may do, and how much of it it uses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dom0 import terminal
from dom0.cli.socket import options
from dom0.cli.socket.ls import served

if TYPE_CHECKING:
    from dom0.cli.socket.scopes import Shown


@click.command("show")
@options.name
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="An object: scope, socket, engine, served, pid, since, grants, usage, error, refusals.",
)
def show(name: str, as_json: bool) -> None:
    """Show everything about one scope: what it was granted, defaults too, and how much of it is in use.

    $ dom0 socket show guest
    """
    from dom0.cli.socket import scopes
    from dom0.socketproxy import registrations

    scopes.engine_socket()
    registrations.require(name)
    found = asyncio.run(scopes.shown(registrations.read(name)))
    if as_json:
        terminal.say_json(found)
        return
    for label, text in (("scope", found.scope), ("served", served(found)), ("socket", found.socket)):
        terminal.say(f"{label:9} {text}")
    terminal.say(f"{'engine':9} {found.engine}{f': {found.error}' if found.error else ''}")
    terminal.say(f"{'refusals':9} {found.refusals}{f': dom0 socket log {name}' if found.refusals else ''}")
    terminal.say()
    terminal.say_columns(("GRANT", "GRANTED", "IN USE"), _rows(found))


def _rows(scope: Shown) -> Iterator[tuple[str, str, str]]:
    used: dict[str, object] = {}
    if usage := scope.usage:
        used = {
            "containers": f"{usage.containers}, {usage.running} run",
            "networks": usage.networks,
            "volumes": usage.volumes,
        }
        if usage.kernel:
            used |= {"memory": terminal.size(usage.kernel.memory), "pids": usage.kernel.pids}
    for key, value in scope.grants.items():
        text = ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
        if value is None:
            text = "no limit"
        yield key, text, str(used.get(key, ""))
