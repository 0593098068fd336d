"""`dom0 files`: which of the project's files this machine changed, and whose version of them stays."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from dom0 import terminal
from dom0.agent.file_status import FileDiff, FileInfo, FilesRequest, FileState
from dom0.cli import completion
from dom0.cli.client import Agent

WITHIN = 300.0  # seconds, for what copies files
_COLOURS: dict[str, str] = {FileState.CONFLICT: "red"}


@click.group(name="files", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="A list of FileInfo documents.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the project's files that this machine changed; show how, and settle whose version stays.

    What the machine changed is never overwritten. Where the project changed the same file, that is a conflict: the
    machine's stays until a person says otherwise.

    $ dom0 files
    $ dom0 files diff conf/app.conf
    $ dom0 files take conf/app.conf  # the project's version; the machine's stays beside it, as app.conf.dom0-old
    """
    if ctx.invoked_subcommand is not None:
        return
    found = Agent().files()
    if found:
        rows = [(info.state, info.path) for info in found]
        terminal.say_table(found, ("STATE", "PATH"), rows, as_json=as_json, colours={"STATE": _COLOURS})
    else:
        terminal.say_done(found, "no file of the project was changed on this machine", as_json=as_json)


paths = click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=completion.files)


@command.command(name="diff")
@click.argument("path", metavar="PATH", shell_complete=completion.files)
@click.option("--json", "as_json", is_flag=True, help="A FileDiff document.")
def show_difference(path: str, as_json: bool) -> None:
    """Show what `dom0 files take` would change in PATH: from the machine's version to the project's.

    $ dom0 files diff conf/app.conf
    """
    found = Agent().call("GET", f"/v1/files/diff?{urlencode({'path': path})}", FileDiff)
    if as_json:
        terminal.say_json(found)
        return
    for note in found.notes:
        terminal.say(f"{found.path}: {note}")
    if found.diff:
        terminal.say(found.diff.rstrip("\n"))
    elif not found.notes and not terminal.quiet():
        terminal.say(f"{found.path}: as the project says")


settled_json = click.option("--json", "as_json", is_flag=True, help="FileInfo documents: what is different still.")


@command.command(name="take")
@paths
@settled_json
def take(paths: tuple[str, ...], as_json: bool) -> None:
    """Put the project's version of each PATH in the place of the machine's.

    The machine's is kept beside it, with `.dom0-old` after its name. A directory means everything in it that the
    project brought.

    $ dom0 files take conf/app.conf
    $ dom0 files take conf
    """
    _settle("take", paths, as_json=as_json)


@command.command(name="keep")
@paths
@settled_json
def keep(paths: tuple[str, ...], as_json: bool) -> None:
    """Keep the machine's version of each PATH, until the project changes it again.

    $ dom0 files keep conf/app.conf
    """
    _settle("keep", paths, as_json=as_json)


def _settle(how: str, paths: tuple[str, ...], *, as_json: bool) -> None:
    body = FilesRequest(paths=paths)
    found = Agent().call("POST", f"/v1/files/{how}", list[FileInfo], body=body, within=WITHIN)
    conflicts = sum(info.state is FileState.CONFLICT for info in found)
    left = f"conflicts that are left: {conflicts}; see them: dom0 files" if conflicts else "no conflict is left"
    terminal.say_done(found, left, as_json=as_json)
