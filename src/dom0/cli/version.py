"""`dom0 version`: of this command, and of the dom0 that runs."""

from __future__ import annotations

import click
import msgspec

from dom0 import __version__
from dom0.cli import terminal
from dom0.cli.client import Agent, AgentUnreachable


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    agent: str  # "" if none runs here
    dom0_image: str  # ID of the image that the agent runs from


@click.command(name="version")
@click.option("--json", "as_json", is_flag=True, help="An object with command, agent and dom0_image.")
def command(as_json: bool) -> None:
    """Show the version of this command and of the running dom0.

    $ dom0 version
    """
    versions = _ask()
    if as_json:
        terminal.say_json(versions)
        return
    terminal.say(f"command  {versions.command}")
    running = f"{versions.agent} (image {terminal.short_id(versions.dom0_image)})" if versions.agent else "does not run"
    terminal.say(f"agent    {running}")


def _ask() -> Versions:
    try:
        status = Agent().status()
    except AgentUnreachable:
        return Versions(command=__version__, agent="", dom0_image="")
    return Versions(command=__version__, agent=status.version, dom0_image=status.dom0_image)
