"""`dom0 socket hold`: keeps the listening sockets of scopes while their servers come and go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

import dom0
from dom0 import names
from dom0.socketproxy import hold as holder


@click.command("hold")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
def hold(directory: Path | None) -> None:
    """Keep the sockets of scopes for `dom0 socket serve --holder DIRECTORY` until SIGTERM or Ctrl-C.

    Without DIRECTORY it is /run/dom0/scopes. A container that has bound a socket keeps a working one while
    `dom0 socket serve` is ended, killed or replaced; meanwhile who connects waits.

    $ dom0 socket hold /run/scopes &
    $ dom0 socket serve --scope guest --holder /run/scopes
    """
    argv = [sys.executable, "-SP", "-m", holder.__name__, str(directory or names.scopes_directory())]
    environment = os.environ | {"PYTHONPATH": str(Path(dom0.__file__).parents[1])}
    os.execve(sys.executable, argv, environment)  # noqa: S606 -- an argv list, no shell; without what is loaded here
