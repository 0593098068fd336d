"""`dom0 events`: the journal, what was done to this machine, why and by whom."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator

import click
import msgspec

from dom0 import terminal, times
from dom0.agent import journal
from dom0.agent.events import DOM0, ENGINE, Entry
from dom0.cli import options
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.places import is_here
from dom0.durable import sync
from dom0.errors import UsageError
from dom0.names import state_directory


class EventBound(msgspec.Struct, frozen=True):
    """A number of an event, or a time in seconds since the epoch; both 0: there is no bound."""

    seq: int = 0
    time: float = 0.0


def _read_bound(ctx: click.Context, parameter: click.Parameter, value: str) -> EventBound:
    try:
        if value.isascii() and value.isdecimal():
            return EventBound(seq=int(value))
        return EventBound(time=options.parse_time(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no time: 10m, 2026-11-23T12:00:00 or the number of an event") from error


@click.command(name="events")
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes.")
@click.option("-n", "--tail", metavar="EVENTS", type=click.IntRange(min=0), help="Only the last EVENTS of them.")
@click.option(
    "--since",
    metavar="TIME",
    default="0",
    callback=_read_bound,
    help="Only later ones: 10m, a date and time, a number.",
)
@click.option("--until", metavar="TIME", default="0", callback=_read_bound, help="Only earlier ones, as --since.")
@click.option("--json", "as_json", is_flag=True, help="Entry documents, one a line.")
def command(follow: bool, tail: int | None, since: EventBound, until: EventBound, as_json: bool) -> None:
    """Show what was done to this machine, why and by whom: steps, generations, refusals, crashes.

    A number is that of an event, as --json shows it. Works without a running dom0 too, as root on the machine itself.

    $ dom0 events --since 1h
    $ dom0 events --follow
    $ dom0 events --json | jq 'select(.kind == "refused")'
    """
    if follow and until != EventBound():
        raise UsageError("events: --follow has no end, and --until names one", hint="leave one of them out")
    shown: deque[Entry] = deque(maxlen=tail)
    last = since.seq
    for entry in _kept(since.seq):
        last = entry.seq
        is_before = (not until.seq or entry.seq <= until.seq) and (not until.time or entry.time < until.time)
        if entry.time >= since.time and is_before:
            shown.append(entry)
    for entry in shown:
        _show(entry, as_json=as_json)
    while follow:  # also from the root container that takes the place of the one that ends
        for entry in Agent().follow_events(last):
            last = entry.seq
            if entry.time >= since.time:
                _show(entry, as_json=as_json)


def _kept(after: int) -> Iterator[Entry]:
    """Those with a greater number, as the agent tells them, or its files where none runs. Raises AgentUnreachable."""
    agent = Agent()
    try:
        first = next(found := agent.events(after), None)
    except AgentUnreachable as unreachable:
        if not is_here():
            raise
        directory = state_directory() / journal.EVENTS
        try:
            entries = list(journal.read(directory, after))
        except PermissionError:
            hint = f"{unreachable.hint}; or read its files as root: sudo dom0 events"
            raise AgentUnreachable(unreachable.message, hint=hint) from None
        except OSError:
            raise unreachable from None
        with contextlib.suppress(OSError):
            sync(directory)  # see journal.read
        yield from entries
        return
    if first is not None:
        yield first
        yield from found


def _show(entry: Entry, *, as_json: bool) -> None:
    if as_json:
        terminal.say_json_line(entry)
        return
    reason = f" ({entry.reason})" if entry.reason else ""
    often = f", {entry.count} times since {times.moment(entry.since)}" if entry.count > 1 else ""
    by = f"  by {entry.actor}" if entry.actor not in (DOM0, ENGINE) else ""
    terminal.say(terminal.printable(f"{times.moment(entry.time)}  {entry.text}{reason}{often}{by}"))
