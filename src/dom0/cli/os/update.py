"""`dom0 os update` and `dom0 os rollback`: another base OS for the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import click

from dom0 import terminal
from dom0.cli.places import go_where_files_are
from dom0.cli.report import Report
from dom0.names import state_directory

_json = click.option("--json", "as_json", is_flag=True, help="An OsStatus document, see docs/os.md.")
_reboot = click.option(
    "--reboot", is_flag=True, help="Restart the machine right away, a node of a farm when its turn is; implies --yes."
)


@click.command("update")
@click.argument("source", metavar="FILE|URL")
@click.option("--sha256", metavar="DIGEST", default="", help="What its digest has to be.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_reboot
@_json
def update(source: str, sha256: str, yes: bool, reboot: bool, as_json: bool) -> None:
    """Put another base OS beside the one that runs; the next start tries it.

    FILE is a dom0-os.efi. A digest beside it (FILE.sha256) is checked, and the signature beside it (FILE.sig) where the
    machine has /var/lib/dom0/os-signers. From a URL it comes as images do: a broken line costs nothing, and after a
    kill the same command goes on from there. The new one has three tries to bring up a healthy dom0; else the machine
    starts the old one again, by itself. Containers, volumes and images stay as they are.

    $ dom0 os update dom0-os/dom0-os.efi
    $ dom0 os update https://example.com/dom0-os.efi --reboot
    """
    asyncio.run(_update(source, sha256, Report(beside=as_json).say, ask_first=not (yes or reboot)))
    outcome = "" if reboot or terminal.quiet() else "the next start tries it: dom0 os status"
    _say_outcome(outcome, reboot=reboot, as_json=as_json)


async def _update(source: str, sha256: str, say: Callable[[str], None], *, ask_first: bool) -> None:
    from dom0.cli.image_pull import own_depot, shown
    from dom0.host import on_host, slots, uki, update_file
    from dom0.registry.download import Downloads

    now = await slots.status()
    slots.refuse_without_slots(now)
    async with (
        Downloads(own_depot, partial(shown, then="is checked")) as server,
        update_file.fetch(source, sha256, server) as found,
    ):
        who = await update_file.check_signature(found, (await on_host.run(slots.PROGRAM, "signers")).stdout)
        os = uki.read(found.file)
        files = uki.slot_files(os)
        slots.refuse(now, os, files)
        signed = f", signed by {who}" if who else ""
        say(f"slot {now.other}: {os.title}, kernel {os.release}{signed}")
        if ask_first:
            question = f"Let the next start try it, instead of {now.version}?"
            terminal.confirm(question, "os update: not confirmed, nothing was changed")
        say(f"writing slot {now.other}")
        await slots.update(files)


@click.command("rollback")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_reboot
@_json
def rollback(yes: bool, reboot: bool, as_json: bool) -> None:
    """Start the other base OS next time; or call off an update that was not started yet.

    $ dom0 os rollback
    $ dom0 os rollback --reboot
    """
    from dom0.host import on_host, slots

    now = asyncio.run(slots.status())
    slots.refuse_without_slots(now)
    if not (yes or reboot):
        terminal.confirm("Change which base OS starts next?", "os rollback: not confirmed, nothing was changed")
    outcome = asyncio.run(on_host.run(slots.PROGRAM, "rollback")).stdout.strip()  # what boots next
    _say_outcome(outcome, reboot=reboot, as_json=as_json)


def _say_outcome(outcome: str, *, reboot: bool, as_json: bool) -> None:
    from dom0.host import slots

    if as_json:
        terminal.say_json(asyncio.run(slots.status()))
    elif outcome:
        terminal.say(outcome)
    if reboot:
        go_where_files_are("os", "restart", as_json=False)
        asyncio.run(_restart())


@click.command("restart", hidden=True)
def restart() -> None:
    """What `--reboot` does where the machine has what makes it a node of its farm: in its root container.

    $ dom0 os restart
    """
    asyncio.run(_restart())


async def _restart() -> None:
    """When the farm's server lets this node, if it is one."""
    from dom0.farms.reboot import locked
    from dom0.host import on_host, slots

    async with locked(state_directory(), terminal.say_to_stderr):
        terminal.say_to_stderr("restarting")
        await on_host.run(slots.PROGRAM, "restart")
