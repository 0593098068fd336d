"""`dom0 farm promote`: which copy of a farm's directory is its server."""

from __future__ import annotations

import click
import msgspec

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.farms import epoch
from dom0.farms.directory import FarmDirectory


class Promoted(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    name: str
    epoch: int


@click.command("promote", short_help="Make this copy of the farm its server.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="An object: name, epoch.")
def promote(farm: FarmDirectory, as_json: bool) -> None:
    """Make this copy of the farm's directory its server, where the one of before is lost, or may come back.

    Each promotion has a higher number, the epoch. A node that has heard it takes nothing more from a copy with a lower
    one, and tells it so: that one stops answering, and its commands change nothing. What was changed there since this
    copy was made is not here.

    $ dom0 farm promote --dir attic
    """
    name = farm.settings().name
    promoted = Promoted(name=name, epoch=epoch.number_of(farm.promote().own))
    said = f"{name}: this copy is the farm's server, with epoch {promoted.epoch}"
    terminal.say_done(promoted, f"{said}; if none runs here: dom0 farm serve", as_json=as_json)
