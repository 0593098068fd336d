"""`dom0 status`: what runs, what does not, and why."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from dom0 import terminal, times
from dom0.cli.announced import announced
from dom0.cli.client import Agent, AgentUnreachable
from dom0.cli.places import is_here
from dom0.cli.pulls import describe
from dom0.health import problem_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dom0.agent.status import MembershipStatus, PullStatus, ServiceStatus, SharingStatus, Status

COLOURS = {
    "ready": "green",
    "completed": "green",
    "scheduled": "green",
    "data": "green",
    "failed": "red",
    "unhealthy": "red",
    "crash-loop": "red",
    "missing": "red",
}


@click.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="The agent's Status document; with --watch one a line.")
@click.option(
    "--exit-code",
    is_flag=True,
    help="End with 1 unless all is as desired and no problem is an error.",
)
@click.option("-w", "--watch", is_flag=True, help="Stay, and show every change until Ctrl-C, or until no dom0 runs.")
def command(as_json: bool, exit_code: bool, watch: bool) -> int:
    """Show what runs here, and why what does not.

    $ dom0 status
    $ dom0 status --watch
    $ dom0 status --exit-code >/dev/null || mail -s "$(hostname)" me@example.org
    $ dom0 status --json | jq .converged
    """
    if not watch:
        try:
            status = with_commands(Agent().status())
        except AgentUnreachable:
            if not as_json and is_here() and (pulls := announced()):
                click.echo("\n".join(_pulling(pulls, time.time())))
            raise
        if as_json:
            terminal.say_json(status)
        else:
            click.echo("\n".join(lines(status)))
        return int(exit_code and not is_well(status))
    # one agent after the other, as each ends when the next one takes its place; it raises where there is none
    statuses = (with_commands(status) for agent in iter(Agent, None) for status in agent.watch())
    if as_json:
        for status in statuses:
            terminal.say_json_line(status)
    elif sys.stdout.isatty():
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, screen=False) as live:
            for status in statuses:
                live.update(Text.from_ansi("\n".join(lines(status))), refresh=True)
    else:
        for status in statuses:
            click.echo("\n".join(lines(status)) + "\n")
    return 0


def is_well(status: Status) -> bool:
    return status.converged and all(problem.severity != "error" for problem in status.problems)


def lines(status: Status) -> list[str]:
    """The status for people; nothing in it is unescaped."""
    heads = ("SERVICE", "CONTAINER", "PHASE", "FOR", "IMAGE", "PORTS", "REASON")
    rows = (_row(service, status.now) for service in status.services)
    text = [terminal.printable(headline(status)), *terminal.columns(heads, rows, colours={"PHASE": COLOURS})]
    if status.pulls:
        text += ["", *_pulling(status.pulls, status.now)]
    if status.sharing:
        text += ["", "Images:", *(f"  {terminal.printable(line)}" for line in _sharing(status.sharing))]
    if status.farm or status.serves:
        text += ["", "Farm:", *(f"  {terminal.printable(line)}" for line in _farms(status))]
    if status.backups:
        text += ["", "Backups:", *(f"  {terminal.printable(line)}" for line in _backups(status))]
    if status.steps:
        text += ["", "Under way:", *(f"  {terminal.printable(step)}" for step in status.steps)]
    return [*text, *map(terminal.printable, problem_lines(status.problems))]


def with_commands(status: Status) -> Status:
    """And what commands pull on this machine, which the agent does not know."""
    return replace(status, pulls=status.pulls + announced()) if is_here() else status


def _pulling(pulls: tuple[PullStatus, ...], now: float) -> list[str]:
    return ["Pulling:", *(f"  {terminal.printable(describe(pull, now))}" for pull in pulls)]


def _sharing(sharing: SharingStatus) -> Iterator[str]:
    if sharing.peers:
        yield f"asked of {', '.join(sharing.peers)} before a registry"
    if sharing.served_at:
        yield f"served at {sharing.served_at} to {', '.join(sharing.allow)}"
    if sharing.mirror:
        yield f"docker pull and builds ask dom0 for those of docker.io, at {sharing.mirror}"


def _farms(status: Status) -> Iterator[str]:
    yield from (f"the server of {name} runs here" for name in status.serves)
    if status.farm:
        yield _farm(status.farm)


def _farm(it: MembershipStatus) -> str:
    if not it.node:
        return f"waits to be approved by the server {it.server}{f' of the farm {it.farm}' if it.farm else ''}"
    runs = f"revision {it.revision} {it.state}" if it.revision else "told of no revision yet"
    return f"{it.node} of {it.farm} at {it.server}, role {it.role}, {runs}{f': {it.reason}' if it.reason else ''}"


def _backups(status: Status) -> Iterator[str]:
    for one in status.backups:
        if one.key:
            last = f"{times.ago(status.now - one.last)} ago, {terminal.size(one.size)}" if one.last else "not yet"
            yield f"{one.volume}  {last}, to {one.to}{'' if one.complete else '; some files could not be read'}"
    if without := [one.volume for one in status.backups if not one.key]:
        yield f"in none: {', '.join(without)}"


def headline(status: Status) -> str:
    info = status.generation
    if info is None:
        return f"{status.project or 'dom0'}: no generation yet"
    blind = next((problem.title for problem in status.problems if problem.subject == "engine"), "")
    if blind:
        state = f"unknown, {blind}; below is what was seen last"
    elif not status.converged:
        state = "not yet as desired"
    else:
        state = "as desired" if is_well(status) else "not as desired"
    outcome = str(info.outcome)
    if info.trial_until:
        outcome = f"trial, goes back in {times.ago(info.trial_until - status.now)}"
    elif info.watched_until:
        outcome = f"ready, watched until {times.moment(info.watched_until)}"
    generation = f"{info.number} ({outcome}), {info.cause}, {times.ago(status.now - info.created)} ago"
    back = f"; back since {times.moment(info.back_at)}: {info.back_because}" if info.back_at else ""
    return f"{status.project}: {state}; generation {generation}{back}"


def _row(service: ServiceStatus, now: float) -> tuple[str, ...]:
    since = service.finished or service.started
    restarts = f"restarted {service.restarts} times" if service.restarts else ""
    reason = "; ".join(part for part in (service.reason, restarts) if part)
    return (
        service.service,
        service.container or "-",
        str(service.phase),
        times.ago(now - since) if since else "",
        service.image,
        ", ".join(service.ports),
        reason,
    )
