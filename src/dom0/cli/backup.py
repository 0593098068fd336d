"""`dom0 backup`: backups of volumes, as `x-dom0.backup` asks for them. The work is in dom0/backup."""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import terminal, times
from dom0.cli.client import Agent, note_done
from dom0.cli.engine_client import on_engine
from dom0.cli.places import go_where_files_are
from dom0.errors import NotFound, UsageError

if TYPE_CHECKING:
    from dom0.backup.restic import Repository, Restored, Snapshot, VolumeSource
    from dom0.engine.protocol import Engine
    from dom0.plan.backups import BackupJob


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    volume: str
    exit_code: int  # of its job


SNAPSHOT = re.compile(r"latest|[0-9a-f]{8,64}")


@click.group(name="backup")
def command() -> None:
    """Back up and restore the volumes that compose.yaml names below x-dom0.backup.

    They are made by their schedule, and by `now`. What a restore brings is verified before it takes the other's place.

    $ dom0 backup ls
    $ dom0 backup now data
    $ dom0 backup restore data
    """


@command.command(name="ls")
@click.argument("volume", metavar="[VOLUME]", required=False)
@click.option(
    "--json", "as_json", is_flag=True, help="A list of BackupStatus; of a VOLUME of objects: id, time, hostname."
)
def list_backups(volume: str | None, as_json: bool) -> None:
    """List the volumes and their last backups; with VOLUME the snapshots of it, newest first.

    $ dom0 backup ls
    $ dom0 backup ls data
    """
    if volume is not None:
        go_where_files_are("backup", "ls", volume, as_json=as_json)
        taken = on_engine(lambda engine: _snapshots(engine, volume))
        moments = [times.moment(datetime.fromisoformat(one.time).timestamp()) for one in taken]
        rows = [(one.id[:8], moment, one.hostname) for one, moment in zip(taken, moments, strict=True)]
        terminal.say_table(list(taken), ("SNAPSHOT", "TIME", "MACHINE"), rows, as_json=as_json)
        return
    found = Agent().status().backups
    cells = [
        (
            one.key or one.volume,
            one.to or "in no backup",
            times.moment(one.last) if one.last else "-",
            terminal.size(one.size) if one.last else "-",
            one.snapshot[:8] or "-",
        )
        for one in found
    ]
    terminal.say_table(list(found), ("VOLUME", "TO", "LAST", "SIZE", "SNAPSHOT"), cells, as_json=as_json)


async def _snapshots(engine: Engine, volume: str) -> tuple[Snapshot, ...]:
    from dom0.backup import job, restic

    [found] = await job.find(engine, [volume])
    return await restic.snapshots(engine, job.repository_of(found), found.path, job.worker_of(found))


@command.command(name="now")
@click.argument("volumes", metavar="[VOLUME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="A list of objects: volume, exit_code.")
def now(volumes: tuple[str, ...], as_json: bool) -> int:
    """Back up each VOLUME now, or all that have backups, one after the other; a run that is under way is followed.

    $ dom0 backup now
    """
    import asyncio

    from dom0.plan.backups import job_name
    from dom0.run import beside_result

    async def prepared(engine: Engine) -> list[BackupJob]:
        from dom0.backup import job, restic

        found = await job.find(engine, volumes)
        if found:
            await restic.prepare_image(engine)
        return found

    jobs = on_engine(prepared)
    if not jobs:
        raise UsageError("backup: no volume has backups", hint="name them in compose.yaml, below x-dom0.backup")
    ran = []
    for job in jobs:
        code = asyncio.run(beside_result(["docker", "start", "--attach", job_name(job.key)], env=os.environ))
        ran.append(Ran(volume=job.volume, exit_code=code))
    if as_json:
        terminal.say_json(ran)
    return int(any(one.exit_code for one in ran))


@command.command(name="restore")
@click.argument("volume", metavar="VOLUME")
@click.argument("snapshot", metavar="[SNAPSHOT]", default="latest")
@click.option("--machine", metavar="NAME", help="The latest one of the machine NAME; default: of this one.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="An object: volume, kept, users.")
def restore(volume: str, snapshot: str, machine: str | None, yes: bool, as_json: bool) -> None:
    """Put a SNAPSHOT (default: the latest one) in the place of what VOLUME has.

    What comes is checked and verified in a new volume first. What was there is kept, in a volume that is named at the
    end. Services of this machine that have the volume are restarted.

    $ dom0 backup restore data
    $ dom0 backup restore data 4f6f8e1c
    """
    if not SNAPSHOT.fullmatch(snapshot):
        raise UsageError(f"{snapshot}: is no snapshot's ID", hint=f"snapshots: dom0 backup ls {volume}")
    given = [*(["--yes"] if yes else []), *(["--machine", machine] if machine else [])]
    go_where_files_are("backup", "restore", volume, snapshot, *given, as_json=as_json)

    async def work(engine: Engine) -> Restored:
        from dom0.backup import job, restic

        [found] = await job.find(engine, [volume])
        source, repository = await job.source_of(engine, found), job.repository_of(found)
        wanted = snapshot
        if snapshot == "latest":
            of = machine or (await engine.info()).name
            taken = await restic.snapshots(engine, repository, found.path, source.worker)
            wanted = next((one.id for one in taken if one.hostname == of), "")
            if not wanted:
                others = ", ".join(sorted({one.hostname for one in taken}))
                hint = f"it has those of {others}: name one with --machine" if others else "dom0 backup now makes one"
                raise NotFound(f"{repository.at}: has no snapshot of {volume} of the machine {of}", hint=hint)
        if not yes:
            question = f"Replace what is in {volume}? It is kept in another volume."
            terminal.confirm(question, "backup restore: not confirmed, nothing was changed")
        return await bring_back("dom0 backup restore", engine, source, repository, wanted)

    say_restored(on_engine(work), as_json=as_json)


async def bring_back(
    command: str, engine: Engine, source: VolumeSource, repository: Repository, snapshot: str
) -> Restored:
    """`command`: for the journal. Raises Dom0Error."""
    from dom0.backup import restic

    kept = f"{source.volume}-restore-{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
    terminal.say_progress(f"restoring into a new volume, {kept}, verifying, then replacing {source.volume}")
    restored = await restic.restore(engine, source, repository, snapshot, kept=kept)
    what = f"{restored.volume} has what snapshot {snapshot[:8]} has; what was there is in {restored.kept}"
    await asyncio.to_thread(note_done, command, what)
    return await restic.restart_users(engine, source, restored)


def say_restored(restored: Restored, *, as_json: bool) -> None:
    lines = [f"{restored.volume}: restored; what was there is in the volume {restored.kept}"]
    if restored.users:
        names = " ".join(restored.users)
        lines.append(f"these still see what was there, until you restart them: docker restart {names}")
    terminal.say_result(restored, *lines, as_json=as_json)
