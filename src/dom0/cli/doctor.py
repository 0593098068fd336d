"""`dom0 doctor`: what this host lacks, and the command that mends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dom0.cli import terminal

if TYPE_CHECKING:
    from dom0.cli.checks import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "missing": "red"}


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with check, verdict, found and hint.")
def command(as_json: bool) -> int:
    """Say what is missing on this host, and the command that mends it. Changes nothing.

    Ends with 1 if something is missing that dom0 needs; warnings alone end with 0.

    $ dom0 doctor
    $ dom0 doctor --json | jq '.[] | select(.verdict != "ok")'
    """
    from dom0.cli.checks import Verdict, examine

    findings = asyncio.run(examine())
    if as_json:
        terminal.say_json(findings)
    else:
        for finding in findings:
            _show(finding)
    return int(any(finding.verdict is Verdict.MISSING for finding in findings))


def _show(finding: Finding) -> None:
    verdict = click.style(f"{finding.verdict:8}", fg=_COLOURS[finding.verdict])
    click.echo(f"{verdict} {terminal.printable(f'{finding.check}: {finding.found}')}")
    if finding.hint:
        click.echo(f"         {terminal.printable(finding.hint)}")
