"""`dom0 os iso`: a boot medium that cannot be written to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from dom0 import terminal
from dom0.cli.os.contract_options import MediumOptions, contract_options
from dom0.cli.os.write import Medium, confirm_file
from dom0.cli.report import Report


@click.command("iso")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@contract_options
@click.option("-y", "--yes", is_flag=True, help="Replace FILE without asking.")
@click.option("--json", "as_json", is_flag=True, help="An object: target, size, version.")
def iso(target: Path, given: MediumOptions, yes: bool, as_json: bool) -> None:
    """Write an ISO: for CDs and for consoles of servers and hypervisors that take one; EFI and BIOS.

    It cannot be updated while it runs. Copied to a stick it starts from there as well.

    $ dom0 os iso dom0.iso --ssh-key ~/.ssh/id_ed25519.pub
    """
    from dom0.osimage import media

    os, contract = given.os(), given.contract()
    confirm_file(target, yes=yes)
    contract = asyncio.run(given.prepared(contract, Report(beside=as_json).say))
    asyncio.run(media.write_iso(os, contract, target))
    size = target.stat().st_size
    medium = Medium(target=str(target), size=size, version=os.version)
    terminal.say_done(medium, f"{target}: {terminal.size(size)}, {os.title}", as_json=as_json)
