"""`dom0 disk`: the disks of a host that runs the base OS. What is done to them is done by its own program."""

from __future__ import annotations

import asyncio

import click

from dom0 import terminal
from dom0.errors import Dom0Error, UsageError

POLICIES = ("use", "use-readonly", "copy-images")
_PATIENCE = 300.0  # seconds; stores are measured for up to one minute each


@click.group(name="disk")
def command() -> None:
    """Show the disks of a host that runs the base OS, format one, adopt another Linux's.

    $ dom0 disk ls
    $ dom0 disk format /dev/sdb
    $ dom0 disk adopt /dev/sdc1 --policy copy-images
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
    rows = (
        (one.device, terminal.size(one.bytes), one.type or one.table, one.label, one.uuid, disk.holds(one, found.data))
        for one in found.devices
    )
    terminal.say_table(found, ("DEVICE", "SIZE", "TYPE", "LABEL", "UUID", "HOLDS"), rows, as_json=as_json)
    if not as_json:
        terminal.say(f"data: {disk.describe(found.data)}")
        for problem in found.problems:
            terminal.say(f"problem: {problem.text}")


@command.command(name="format")
@click.argument("device", metavar="DEVICE")
@click.option("--yes", is_flag=True, help="Do not ask for the name of the device.")
def format_disk(device: str, yes: bool) -> None:
    """Make DEVICE, a blank disk, a data disk; the next boot takes it.

    A disk with anything on it is refused: a file system, a partition table, a single byte in its first or last MiB.

    $ dom0 disk format /dev/sdb
    """
    from dom0.host import on_host

    if not yes and not terminal.has_keyboard():
        raise UsageError(f"{device}: is formatted only with consent", hint="on a terminal, or with --yes")
    question = f"{terminal.printable(device)} becomes a data disk. Type its name to go on"
    if not yes and click.prompt(question, default="") != device:
        raise Dom0Error(f"{device}: left as it is", hint="what was typed is another name")
    terminal.say(asyncio.run(on_host.run("disk", "format", device, "--yes")).stdout.rstrip())


@command.command(name="adopt")
@click.argument("device", metavar="DEVICE")
@click.option(
    "--policy",
    required=True,
    type=click.Choice(POLICIES),
    metavar="POLICY",
    help="use, use-readonly or copy-images.",
)
def adopt(device: str, policy: str) -> None:
    """Adopt the Docker store of another Linux on DEVICE.

    copy-images copies its images to the data disk now, and changes no bit of DEVICE. The others take the place of the
    data disk, so this says whether they can, and what the boot contract has to say for the next boot: use goes on with
    its containers, images and volumes; use-readonly as well, but keeps all changes in memory.

    $ dom0 disk adopt /dev/sdc1 --policy copy-images
    """
    from dom0.host import on_host

    terminal.say(asyncio.run(on_host.run("disk", "adopt", device, policy)).stdout.rstrip())
