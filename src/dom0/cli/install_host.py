"""`dom0 install-host`: the launcher of the base OS, on a host that is another Linux."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import click
import msgspec

from dom0 import terminal
from dom0.cli.places import require_here
from dom0.host import install
from dom0.run import capture

SYSTEMD = Path("/run/systemd/system")  # there while it runs


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    action: Literal["install", "remove", "keep"]
    path: str


@click.command("install-host")
@click.option("--uninstall", is_flag=True, help="Remove what was installed, as far as it is unchanged.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default="/",
    show_default=True,
    metavar="DIR",
    help="Install below DIR, of a system that does not run, and start nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects: action (install, remove, keep) and path.")
def command(uninstall: bool, root: Path, as_json: bool) -> int:
    """Let this host start dom0:latest at every boot, and keep an eye on it.

    It installs the launcher of the base OS as a systemd unit, dom0.service: dom0:latest, else the last image that was
    good. What runs is not touched, and a second time nothing changes. Uninstalled, dom0 runs on.

    $ dom0 install-host
    $ dom0 install-host --uninstall
    $ dom0 install-host --root /mnt/target
    """
    require_here("the host")
    starts = root == Path("/") and SYSTEMD.exists()
    if uninstall:
        return _uninstall(root, starts=starts, as_json=as_json)
    written = install.install(root)
    changes = [FileChange(action="install", path=f"/{path}") for path in written]
    terminal.say_done(changes, *(f"install {change.path}" for change in changes), as_json=as_json)
    if starts and written:
        asyncio.run(_systemctl("daemon-reload"))
        asyncio.run(_systemctl("restart", install.UNIT))
    if starts:
        result = "dom0.service runs: systemctl status dom0" if written else "nothing to do, the launcher is installed"
    elif root != Path("/"):
        result = f"the launcher is installed: {root} starts dom0 when it boots"
    else:
        result = "the launcher is installed, but no systemd runs here: start /usr/lib/dom0/launch at boot yourself"
    if not (as_json or terminal.quiet()):
        terminal.say(result)
    return 0


def _uninstall(root: Path, *, starts: bool, as_json: bool) -> int:
    if starts and (root / install.RECEIPT).exists():
        asyncio.run(_systemctl("stop", install.UNIT))
    done = install.uninstall(root)
    removed = [FileChange(action="remove", path=f"/{path}") for path in done.remove]
    kept = [FileChange(action="keep", path=f"/{path}") for path in done.keep]
    lines = [f"remove {change.path}" for change in removed]
    if not removed and not kept:
        lines = ["nothing of the launcher is installed"]
    terminal.say_done([*removed, *kept], *lines, as_json=as_json)
    for change in [] if as_json else kept:
        terminal.say_to_stderr(f"keep {change.path}: it was changed since dom0 installed it")
    if starts and removed:
        asyncio.run(_systemctl("daemon-reload"))
    return int(bool(kept))


async def _systemctl(*arguments: str) -> None:
    await capture(["systemctl", *arguments], timeout=60)
