"""`dom0 version`: of this command, and of the dom0 that runs."""

from __future__ import annotations

import contextlib

import click
import msgspec

from dom0 import __version__, terminal
from dom0.cli.client import Agent, AgentUnreachable
from dom0.names import short_id


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
    agent, image = "", ""
    with contextlib.suppress(AgentUnreachable):
        status = Agent().status()
        agent, image = status.version, status.dom0_image
    running = f"{agent} (image {short_id(image)})" if agent else "does not run"
    versions = Versions(command=__version__, agent=agent, dom0_image=image)
    terminal.say_result(versions, f"command  {__version__}", f"agent    {running}", as_json=as_json)
