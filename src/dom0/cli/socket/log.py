"""`dom0 socket log`: what was refused through the socket of a scope, and the smallest grant that would allow it."""

from __future__ import annotations

import contextlib
import re
import time

import click

from dom0 import terminal, times
from dom0.cli.socket import options

POLLED = 0.5  # seconds between two looks
VERSION = re.compile(r"/v[0-9.]+(?=/)")


@click.command("log")
@options.name
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes.")
@click.option("-n", "--tail", type=click.IntRange(0), metavar="LINES", help="Only the last LINES; default: all.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Objects, one a line: at, method, path, message, field, value, grant, times.",
)
def log(name: str, follow: bool, tail: int | None, as_json: bool) -> None:
    """Show what was refused: the request, the field and its value, and the smallest grant that would allow it.

    Equal refusals in a row are one line with their number. It keeps the last 1 to 2 MB.

    $ dom0 socket log guest
    $ dom0 socket log -f -n 0 guest
    """
    from dom0.cli.socket import scopes
    from dom0.socketproxy import refusals, registrations

    scopes.engine_socket()
    directory = registrations.require(name, registrations.FILE, refusals.FILE)
    with contextlib.closing(refusals.Reader(directory)) as reader:
        found = reader.read()
        found = found if tail is None else found[max(0, len(found) - tail) :]
        while True:
            for refusal in found:
                if as_json:
                    terminal.say_json_line(refusal)
                    continue
                often = f" ({refusal.times} times)" if refusal.times > 1 else ""
                request = f"{refusal.method} {VERSION.sub('', refusal.path, count=1)}"
                terminal.say(f"{times.moment(refusal.at)}  {request}  {refusal.message}{often}")
            if not follow:
                return
            time.sleep(POLLED)
            found = reader.read()
