"""`dom0 os`: the base OS, from Debian packages to a machine that runs it. A module for each command."""

from __future__ import annotations

import click

from dom0.cli.os.build import build
from dom0.cli.os.iso import iso
from dom0.cli.os.netboot import netboot
from dom0.cli.os.run import run
from dom0.cli.os.status import status
from dom0.cli.os.update import restart, rollback, update
from dom0.cli.os.write import write


@click.group("os")
def command() -> None:
    """Build the base OS, one file that starts a machine whose last boot step is dom0; put it on boot media; update it.

    $ dom0 os build
    $ dom0 os write dom0.img --ssh-key ~/.ssh/id_ed25519.pub
    $ dom0 os update dom0-os/dom0-os.efi --reboot
    """


for one in (build, write, iso, netboot, run, update, rollback, restart, status):
    command.add_command(one)
