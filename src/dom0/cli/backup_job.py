"""`dom0 backup-job`: what the job that backs up a volume runs, in its container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dom0 import terminal
from dom0.cli.engine_client import on_engine

if TYPE_CHECKING:
    from dom0.backup.restic import Backup
    from dom0.engine.protocol import Engine


@click.command(name="backup-job", hidden=True)
@click.argument("volume")
def command(volume: str) -> int:
    """Back up VOLUME as x-dom0.backup says. For people: dom0 backup now."""

    async def work(engine: Engine) -> Backup:
        from dom0.backup import job

        [found] = await job.find(engine, [volume])
        return await job.run(engine, found, terminal.say)

    made = on_engine(work)
    kept, grown = terminal.size(made.size), terminal.size(made.added)
    terminal.say(f"{made.files} files, {kept}, {grown} of it new; snapshot {made.snapshot[:8]}")
    if not made.complete:
        terminal.say_to_stderr("dom0: some files could not be read, and are missing in it")
    return 0 if made.complete else 1
