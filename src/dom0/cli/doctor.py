"""`dom0 doctor`: what this host lacks, and the command that mends it."""

from __future__ import annotations

import asyncio

import click

from dom0 import terminal

_COLOURS = {"ok": "green", "warning": "yellow", "missing": "red"}


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with check, verdict, found and hint.")
def command(as_json: bool) -> int:
    """Say what is missing on this host, and the command that mends it. Changes nothing.

    Ends with 1 if something is missing that dom0 needs; warnings alone end with 0.

    $ dom0 doctor
    $ dom0 doctor --json | jq '.[] | select(.verdict != "ok")'
    """
    from dom0.cli.checks import CheckVerdict, examine

    findings = asyncio.run(examine())
    missing = int(any(finding.verdict is CheckVerdict.MISSING for finding in findings))
    if as_json:
        terminal.say_json(findings)
        return missing
    for finding in findings:
        verdict = click.style(f"{finding.verdict:8}", fg=_COLOURS[finding.verdict])
        click.echo(f"{verdict} {terminal.printable(f'{finding.check}: {finding.found}')}")
        if finding.hint:
            click.echo(f"         {terminal.printable(finding.hint)}")
    return missing
