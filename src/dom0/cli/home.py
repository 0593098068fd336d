"""`dom0 home`: backups of the home volume. The work is in dom0/backup."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dom0 import terminal, times
from dom0.cli.backup import SNAPSHOT, bring_back, say_restored
from dom0.cli.engine_client import on_engine
from dom0.cli.places import go_where_files_are
from dom0.errors import Dom0Error, UsageError
from dom0.names import HOME_SNAPSHOTS, state_directory

if TYPE_CHECKING:
    from dom0.backup.restic import Backup, Repository, Restored
    from dom0.engine.protocol import Engine
    from dom0.home import Homes

_backup_json = click.option(
    "--json", "as_json", is_flag=True, help="An object: snapshot, files, size, added, complete."
)
_password_file = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="RESTIC_PASSWORD_FILE",
    metavar="FILE",
    help="Read the backup's password from its first line; default: RESTIC_PASSWORD_FILE, RESTIC_PASSWORD, or ask.",
)
_no_password = click.option("--insecure-no-password", is_flag=True, help="As restic: anybody can read the backup.")


@click.group(name="home")
def command() -> None:
    """Back up and restore the home volume.

    A snapshot is kept on this machine and helps against mistakes. A backup is for another place: one file, or a
    directory (a restic repository) that grows only by what changed. Backups are encrypted with a password.

    $ dom0 home snapshot
    $ dom0 home backup /media/usb/home.backup
    $ dom0 home restore /media/usb/home.backup
    """


@command.command(name="ls")
@click.option("--json", "as_json", is_flag=True, help="An object: home, kept, snapshots (id, time, hostname).")
def list_homes(as_json: bool) -> None:
    """List the home volume, what restores left, and the snapshots on this machine.

    $ dom0 home ls
    """
    go_where_files_are("home", "ls", as_json=as_json)
    has_some = Path(local_repository().at, "config").exists()

    async def look(engine: Engine) -> Homes:
        from dom0 import home
        from dom0.backup import restic

        here = await home.find_home(engine)
        taken = await restic.snapshots(engine, local_repository(), here.path, here.worker) if has_some else ()
        return home.Homes(home=here.volume, kept=await restic.kept_volumes(engine, here.volume), snapshots=taken)

    homes = on_engine(look)
    lines = [f"home      {homes.home}"]
    lines += [f"kept      {name}  (from a restore; to delete it: docker volume rm {name})" for name in homes.kept]
    for one in homes.snapshots:
        lines.append(f"snapshot  {one.id[:8]}  {times.moment(datetime.fromisoformat(one.time).timestamp())}")
    terminal.say_result(homes, *lines, as_json=as_json)


@command.command(name="snapshot")
@_backup_json
def snapshot(as_json: bool) -> int:
    """Keep the home as it is now, on this machine.

    Snapshots share what did not change. They are a restic repository in /var/lib/dom0/home-snapshots.

    $ dom0 home snapshot
    $ dom0 home restore latest
    """
    go_where_files_are("home", "snapshot", as_json=as_json)
    repository = local_repository()
    Path(repository.at).mkdir(mode=0o700, parents=True, exist_ok=True)
    return _back_up(repository, "snapshot", as_json=as_json)


@command.command(name="backup")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@_password_file
@_no_password
@_backup_json
def backup(target: Path, force: bool, password_file: Path | None, insecure_no_password: bool, as_json: bool) -> int:
    """Back up the home to FILE; if FILE is a directory, to the restic repository in it (made if it is empty).

    What was written is checked before it gets its name. A file is a tar of a restic repository, readable without dom0.

    $ dom0 home backup home.backup
    $ mkdir /media/usb/home && dom0 home backup /media/usb/home
    """
    if target.is_dir():
        if any(target.iterdir()) and not (target / "config").is_file():
            raise UsageError(f"{target}: is neither empty nor a restic repository", hint="name an empty directory")
    elif target.exists() and not force:
        raise UsageError(f"{target}: exists", hint="name another file, or --force to replace it")
    elif not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such directory", hint="make it first")
    password = None if insecure_no_password else read_password(password_file, new=not (target / "config").exists())
    return _back_up(repository_at(target, password), str(target), as_json=as_json)


@command.command(name="restore")
@click.argument("source", metavar="FILE|SNAPSHOT")
@click.option(
    "--snapshot", "wanted", metavar="ID", default="latest", help="Of a directory: which one; default: latest."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_password_file
@_no_password
@click.option("--json", "as_json", is_flag=True, help="An object: volume, kept, users.")
def restore(
    source: str, wanted: str, yes: bool, password_file: Path | None, insecure_no_password: bool, as_json: bool
) -> None:
    """Put the home of a backup, or of a snapshot on this machine, in the place of the home.

    What comes is checked and verified in a new volume first. The home from before is kept, in a volume that is named
    at the end. Services and logins of this machine that have the home are restarted.

    $ dom0 home restore /media/usb/home.backup
    $ dom0 home restore latest
    """
    path = Path(source)
    if path.exists():
        password = None if insecure_no_password else read_password(password_file, new=False)
        repository = repository_at(path, password)
    elif SNAPSHOT.fullmatch(source):
        go_where_files_are("home", "restore", source, *(["--yes"] if yes else []), as_json=as_json)
        repository, wanted = local_repository(), source
    else:
        raise UsageError(f"{source}: no such file, and no snapshot's ID", hint="snapshots: dom0 home ls")
    if not yes:
        question = "Replace the home? What is there now is kept in another volume."
        terminal.confirm(question, "home restore: not confirmed, nothing was changed")

    async def work(engine: Engine) -> Restored:
        from dom0 import home

        return await bring_back("dom0 home restore", engine, await home.find_home(engine), repository, wanted)

    say_restored(on_engine(work), as_json=as_json)


def _back_up(repository: Repository, where: str, *, as_json: bool) -> int:
    async def work(engine: Engine) -> Backup:
        from dom0 import home
        from dom0.backup import restic

        here = await home.find_home(engine)
        terminal.say_progress(f"backing up {here.volume}")
        made, _ = await restic.back_up(engine, here, repository)
        return made

    made = on_engine(work)
    kept, grown = terminal.size(made.size), terminal.size(made.added)
    text = f"{where}: {made.files} files, {kept}, {grown} of it new; snapshot {made.snapshot[:8]}"
    terminal.say_result(made, text, as_json=as_json)
    if not made.complete:
        terminal.say_to_stderr("dom0: home: some files could not be read and are missing in it")
    return 0 if made.complete else 1


def local_repository() -> Repository:
    """Not encrypted: who can read it can read the home beside it."""
    from dom0.backup.restic import Repository

    return Repository(str(state_directory() / HOME_SNAPSHOTS), password=None)


def repository_at(path: Path, password: str | None) -> Repository:
    from dom0.backup.restic import Repository

    return Repository(str(path.resolve()), is_file=not path.is_dir(), password=password)


def read_password(file: Path | None, *, new: bool) -> str:
    """From the file, the environment, or the terminal; a new one is asked for twice. Raises UsageError."""
    if file is not None:
        password = file.read_text().split("\n", 1)[0]
    elif "RESTIC_PASSWORD" in os.environ:
        password = os.environ["RESTIC_PASSWORD"]
    elif terminal.has_keyboard():
        password = click.prompt("Password of the backup", hide_input=True, confirmation_prompt=new, err=True)
    else:
        raise UsageError(
            "home: no password given, and no terminal to ask for it",
            hint="set RESTIC_PASSWORD_FILE or RESTIC_PASSWORD, or --password-file, or --insecure-no-password",
        )
    if not password:
        raise UsageError("home: the password is empty", hint="or say --insecure-no-password")
    if "\n" in password:
        raise Dom0Error("home: the password has several lines", hint="set one of one line")
    return password
