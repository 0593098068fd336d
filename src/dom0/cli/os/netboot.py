"""`dom0 os netboot`: the files that machines start from over a network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
import msgspec

from dom0 import terminal
from dom0.cli.os.contract_options import MediumOptions, contract_options
from dom0.cli.report import Report


class BootDirectory(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    directory: str
    version: str  # of the base OS
    loaders: tuple[str, ...]  # iPXE, for each firmware


@click.command("netboot")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--url", metavar="URL", default="", help="What a web server serves DIR as; without, all goes by TFTP.")
@contract_options
@click.option("--json", "as_json", is_flag=True, help="An object: directory, version, loaders.")
def netboot(directory: Path, url: str, given: MediumOptions, as_json: bool) -> None:
    """Fill DIR with what iPXE starts machines from over the network; nothing is installed on them.

    Run again with a newer base OS, it updates all of them at their next start. The files of older ones are left there.

    $ dom0 os netboot /srv/dom0 --url http://192.168.0.1/dom0 --ssh-key ~/.ssh/id_ed25519.pub
    """
    from dom0.osimage import netboot as tree

    os, contract = given.os(), given.contract()
    tree.refuse(url)
    contract = asyncio.run(given.prepared(contract, Report(beside=as_json).say))
    loaders = asyncio.run(tree.write(os, contract, directory, url))
    terminal.say_done(
        BootDirectory(directory=str(directory), version=os.version, loaders=tuple(loaders)),
        f"{directory}: boot.ipxe starts {os.title}",
        f"iPXE for firmware: {', '.join(loaders) or 'none, install the package ipxe and run this again'}",
        as_json=as_json,
    )
