"""`dom0 farm join`: this machine, as a node of a farm."""

from __future__ import annotations

import asyncio

import click

from dom0 import terminal
from dom0.cli import places
from dom0.farms import pin
from dom0.host import contract
from dom0.names import run_directory, state_directory


@click.command("join", short_help="Make this machine a node of a farm.")
@click.argument("server", metavar="[HOST:PORT:FINGERPRINT]", default="")
@click.option("--leave", is_flag=True, help="Leave the farm of another server that this machine is in.")
@click.option("--json", "as_json", is_flag=True, help="An object: farm, state, code, name, role.")
def join(server: str, leave: bool, as_json: bool) -> None:
    """Make this machine a node of a farm, whose server prints HOST:PORT:FINGERPRINT.

    Prints a code, and waits until somebody has approved it on the server. What the machine is known by is kept with
    dom0's state, on the data disk: it stays a node when it is started again.

    Without HOST:PORT:FINGERPRINT it asks the server of the farm that this machine is in, or that the boot contract
    names, which role it has.

    $ dom0 farm join 192.168.0.2:7701:5f0c…
    """
    if server:
        pin.parse(server)
    arguments = [*(["--leave"] if leave else []), *([server] if server else [])]
    places.go_where_files_are("farm", "join", *arguments, as_json=as_json)
    from dom0.farms import join

    state = state_directory()
    found = pin.parse(server or join.known_server(state) or contract.get(run_directory(), "farm"))
    membership = join.prepare(state, found, leave=leave)
    standing = asyncio.run(join.join(state, found, membership, terminal.say_to_stderr))
    said = f"{standing.name}: a node of the farm {standing.farm}, with the role {standing.role}"
    terminal.say_done(standing, said, as_json=as_json)
