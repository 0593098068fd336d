"""`dom0 farm`: machines that belong together. A module for each command, or for a few that are alike."""

from __future__ import annotations

import click

from dom0.cli.farms.init import init
from dom0.cli.farms.join import join
from dom0.cli.farms.nodes import approve, assign, nodes, remove
from dom0.cli.farms.promote import promote
from dom0.cli.farms.reach import exec_command, logs
from dom0.cli.farms.rollout import drain, pause, resume, undrain, unlock
from dom0.cli.farms.serve import serve
from dom0.cli.farms.status import status
from dom0.cli.farms.tree import tree
from dom0.cli.farms.up import history, plan, rollback, up


@click.group("farm")
def command() -> None:
    """Say which machines belong to a farm, and what they run: on its server init, serve, nodes, approve, up; on a
    machine join.

    $ dom0 farm init attic
    $ dom0 farm serve --dir attic
    $ dom0 farm approve --dir attic db6916 --as nas --role store
    """


for one in (init, serve, nodes, approve, assign, remove, join, plan, up, status, tree, history, rollback):
    command.add_command(one)
for one in (pause, resume, drain, undrain, unlock, promote, exec_command, logs):
    command.add_command(one)
