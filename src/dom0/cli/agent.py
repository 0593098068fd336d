"""`dom0 agent`: the root container's process. Persons do not call it."""

from __future__ import annotations

import os

import click

from dom0 import log
from dom0.cli.client import Agent


@click.command("agent", hidden=True)
@click.option("--check", is_flag=True, help="Ask the running agent whether it answers (the image's health check).")
def command(check: bool) -> None:
    """Run the agent, or --check the running one.

    Example: dom0 agent --check
    """
    if check:
        Agent().status()
        return
    import asyncio

    from dom0 import daemon

    log.configure(os.environ.get("DOM0_LOG", "info"))
    asyncio.run(daemon.run())
