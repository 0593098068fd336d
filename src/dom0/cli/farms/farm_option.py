"""Where the farm is, for all commands on its server."""

from __future__ import annotations

from pathlib import Path

import click

from dom0.cli.node_engine import VARIABLE
from dom0.farms.directory import FarmDirectory

farm_option = click.option(
    "--dir",
    "farm",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    envvar=VARIABLE,
    callback=lambda _context, _option, path: FarmDirectory(path),
    help="The farm's directory; default: that in DOM0_FARM, or the current one.",
)
