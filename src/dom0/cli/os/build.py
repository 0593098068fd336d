"""`dom0 os build`: the base OS from Debian packages."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from dom0 import terminal
from dom0.cli.report import Report

FLAVOURS = ("vm", "metal")  # as in osimage.recipe, which would load what builds them
ARCHITECTURES = ("amd64", "arm64")


@click.command("build")
@click.option(
    "--arch", type=click.Choice(ARCHITECTURES), metavar="ARCH", help="amd64 or arm64; this host's if left out."
)
@click.option(
    "--flavour",
    type=click.Choice(FLAVOURS),
    default="vm",
    show_default=True,
    metavar="NAME",
    help="vm for virtual machines, metal for sticks, cards and all that is no virtual machine.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="dom0-os",
    show_default=True,
    metavar="DIR",
    help="Where the files go.",
)
@click.option(
    "--rescue/--no-rescue", default=True, help="Put the rescue image in or not: an ssh server, 3 MB. Default: in."
)
@click.option("--no-cache", is_flag=True, help="Build everything anew, with the packages of today.")
@click.option("--json", "as_json", is_flag=True, help="The manifest: version, packages, modules, artifacts.")
def build(arch: str | None, flavour: str, out: Path, rescue: bool, no_cache: bool, as_json: bool) -> None:
    """Build the base OS from Debian packages: dom0-os.efi, and the same as linux and initrd.

    Beside them come the digest of dom0-os.efi, and manifest.json with every package. What is up to date is not built
    again, and the same packages make the same bytes.

    $ dom0 os build
    $ dom0 os build --flavour metal  # for sticks and cards
    $ dom0 os build --arch arm64 --out /srv/dom0-os
    $ dom0 os build --no-rescue  # without the ssh server for a machine on which no dom0 works
    $ dom0 os build --no-cache  # take in Debian's security updates
    """
    from dom0.osimage import build as building
    from dom0.osimage import recipe

    say = Report(beside=as_json).say
    built = asyncio.run(building.build(recipe.load(arch or "", flavour), say, no_cache=no_cache, with_rescue=rescue))
    building.export(built, out)
    if as_json:
        terminal.say_json(built.manifest)
    elif not terminal.quiet():
        rows = [(artifact.name, terminal.size(artifact.size)) for artifact in built.manifest.artifacts]
        if built.manifest.rescue:
            rows.append(("of these, the rescue image", terminal.size(built.manifest.rescue)))
        terminal.say(f"{out}: base OS {built.manifest.version}, kernel {built.manifest.kernel}")
        terminal.say_columns(("FILE", "SIZE"), rows)
