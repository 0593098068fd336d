"""`dom0 ambassador`: look at and rewire the ambassadors of this machine; and what legacy links need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dom0.cli import options, terminal
from dom0.errors import EXIT_CHANGES

if TYPE_CHECKING:
    from dom0.cli.legacy_links import Legacy


@click.group(name="ambassador")
def command() -> None:
    """Forward connections to wherever a service is now: consumers keep their address, and their connections.

    $ dom0 ambassador migrate
    """


@command.command(name="migrate")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with container, links, breaks, compose, …")
def migrate(as_json: bool) -> int:
    """Find containers on this host that use legacy links, and say what replaces each link.

    Asks the Docker Engine only, and changes nothing. Ends with 10 if there are any, with 0 if there are none.

    $ dom0 ambassador migrate
    $ dom0 ambassador migrate --json | jq -r '.[].compose'
    """
    from dom0.cli import engine_client
    from dom0.cli.legacy_links import Inspected, examine, is_legacy, targets

    listed = (engine_client.inspected(row.id, Inspected) for row in engine_client.containers())
    by_name = {found.name.removeprefix("/"): found for found in listed if found is not None}
    found = [
        examine(container, {name: by_name[name] for name, _ in targets(container) if name in by_name})
        for _, container in sorted(by_name.items())
        if is_legacy(container)
    ]
    if as_json:
        terminal.say_json(found)
    elif not found:
        terminal.say("no container here has a legacy link")
    else:
        for one in found:
            _show_legacy(one)
        if not options.quiet():
            terminal.say(f"This Engine is {engine_client.engine_version()}.")
    return EXIT_CHANGES if found else 0


def _show_legacy(one: Legacy) -> None:
    links = ", ".join(f"{link.target} as {link.alias}" for link in one.links)
    terminal.say(f"{one.container} ({one.image}) is linked to {links}")
    for text in one.breaks:
        terminal.say(f"  {text}")
    if one.named:
        terminal.say(f"  its command or environment names {', '.join(one.named)}")
    copied = [name for link in one.links for name in link.copied]
    if copied:
        terminal.say(f"  copied from the linked containers and not replaced below: {', '.join(copied)}")
    terminal.say("  in a Compose file, these lines replace the link:\n")
    terminal.say("\n".join(f"    {line}" for line in one.compose.splitlines()))
    terminal.say()
