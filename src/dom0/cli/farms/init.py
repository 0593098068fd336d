"""`dom0 farm init`: a new farm."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import click
import msgspec

from dom0 import terminal
from dom0.cli.init import DEFAULT_EXAMPLE
from dom0.errors import UsageError
from dom0.farms import pin, settings
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import NAME
from dom0.wording import excerpt


class NewFarm(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    directory: str
    name: str
    fingerprint: str


@click.command("init")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--example", metavar="NAME", default=DEFAULT_EXAMPLE, help="hello (the default: one role) or house.")
@click.option("--json", "as_json", is_flag=True, help="An object: directory, name, fingerprint.")
def init(directory: Path, example: str, as_json: bool) -> None:
    """Make a farm in DIR, which must be empty or not there yet, and the key of its server.

    The farm gets the directory's name. DIR/roles/hello is a role to begin with; each directory beside it is another
    one. DIR/state is the server's: the key in it is what nodes know the server by. Keep a copy of it, and to yourself.

    $ dom0 farm init attic
    $ dom0 farm init --example house attic
    """
    name = directory.resolve().name
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{excerpt(name) or '/'}: is no name for a farm", hint="a directory of small letters, digits and dashes"
        )
    farm = FarmDirectory(directory)
    farm.check_new()
    farm.make(name, asyncio.run(pin.make_certificate(name)), _files(example, name))
    roles = farm.roles()
    terminal.say_done(
        NewFarm(directory=str(directory), name=name, fingerprint=pin.fingerprint(farm.server_pem)),
        f"{directory}: the farm {name}, with the role{'s' * (len(roles) > 1)} {', '.join(roles)}",
        f"next: dom0 farm serve --dir {shlex.quote(str(directory))}",
        as_json=as_json,
    )


def _files(example: str, name: str) -> dict[str, bytes]:
    """Of a farm like that, by their paths. Raises UsageError."""
    from dom0.images import recipe

    top = recipe.examples()
    farms = sorted(path.parent.name for path in top.glob(f"*/{settings.FILE}"))
    if example == DEFAULT_EXAMPLE:
        return {f"roles/{example}/compose.yaml": (top / example / "compose.yaml").read_bytes()}
    if example not in farms:
        there = ", ".join([DEFAULT_EXAMPLE, *farms])
        raise UsageError(f"--example {excerpt(example)}: there is none", hint=f"there are: {there}")
    found = {str(path.relative_to(top / example)): path for path in (top / example).rglob("*") if path.is_file()}
    said = found.pop(settings.FILE).read_text().replace(f"name: {example}\n", f"name: {name}\n", 1)
    return {settings.FILE: said.encode(), **{path: file.read_bytes() for path, file in found.items()}}
