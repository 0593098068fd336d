"""`dom0 os status`: which base OS runs, and which one starts next."""

from __future__ import annotations

import asyncio

import click

from dom0 import terminal


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="An OsStatus document, see docs/os.md.")
def status(as_json: bool) -> None:
    """Show the base OS that runs, and the slots of its boot medium.

    $ dom0 os status
    """
    from dom0.host import slots

    now = asyncio.run(slots.status())
    if as_json:
        terminal.say_json(now)
        return
    terminal.say(f"base OS {now.version}")
    if now.slots:
        rows = [(slot.name, slot.version or "-", slot.kernel or "-", now.state(slot)) for slot in now.slots]
        terminal.say_columns(("SLOT", "BASE OS", "KERNEL", "STATE"), rows)
    else:
        terminal.say("no slots: it is updated by restarting, with other files where it starts from")
