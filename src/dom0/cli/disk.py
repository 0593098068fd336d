"""`dom0 disk`: the disks of a host that runs the base OS. What is done to them is done by its own program."""

from __future__ import annotations

import asyncio

import click

from dom0.cli import terminal

_PATIENCE = 300.0  # seconds; stores are measured for up to one minute each


@click.group(name="disk")
def command() -> None:
    """Show the disks of the base OS, and say which of them hold what.

    $ dom0 disk ls
    """


@command.command(name="ls")
@click.option(
    "--json", "as_json", is_flag=True, help="An object: data, problems, devices; docs/disk.md names the fields."
)
def list_disks(as_json: bool) -> None:
    """List disks and partitions: what is on them, and which one holds the data of this machine.

    Looking changes no bit of any disk.

    $ dom0 disk ls
    $ dom0 disk ls --json | jq '.devices[] | select(.store)'
    """
    from dom0.host import disk, on_host

    found = disk.decode(asyncio.run(on_host.run("disk", "ls", timeout=_PATIENCE)).stdout)
    if as_json:
        terminal.say_json(found)
        return
    rows = [
        (one.device, terminal.size(one.bytes), one.type or one.table, one.label, one.uuid, disk.holds(one, found.data))
        for one in found.devices
    ]
    terminal.say_columns(("DEVICE", "SIZE", "TYPE", "LABEL", "UUID", "HOLDS"), rows)
    terminal.say(f"data: {disk.told(found.data)}")
    for problem in found.problems:
        terminal.say(f"problem: {problem.text}")
