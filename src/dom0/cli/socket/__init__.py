"""`dom0 socket`: Engine sockets that show and touch only what is made through them. A module for each command."""

from __future__ import annotations

import click

from dom0.cli.socket.ending import rm, stop
from dom0.cli.socket.explain import explain
from dom0.cli.socket.hold import hold
from dom0.cli.socket.log import log
from dom0.cli.socket.ls import ls
from dom0.cli.socket.record import record
from dom0.cli.socket.serve import serve
from dom0.cli.socket.show import show


@click.group("socket")
def command() -> None:
    """Give a container an Engine socket of its own, with limits; see who has which, and what was refused.

    $ dom0 socket serve --scope guest --grants guest.yaml
    $ dom0 socket ls
    $ dom0 socket log guest
    $ dom0 socket stop guest
    """


for one in (serve, hold, ls, show, log, explain, record, stop, rm):
    command.add_command(one)
