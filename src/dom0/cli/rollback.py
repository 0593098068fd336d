"""`dom0 rollback`: back to a generation that was good."""

from __future__ import annotations

import asyncio

import click

from dom0.cli import completion, terminal
from dom0.cli.client import Agent
from dom0.cli.follow import follow
from dom0.cli.up import await_succession


@click.command(name="rollback")
@click.argument("generation", type=click.IntRange(min=1), required=False, shell_complete=completion.generations)
@click.option("--json", "as_json", is_flag=True, help="Progress documents, one a line.")
def command(generation: int | None, as_json: bool) -> None:
    """Go back to GENERATION, or to the last good one before the current one.

    Waits until its services run; ends with 5 if they do not become healthy.

    $ dom0 rollback
    $ dom0 history && dom0 rollback 3
    """
    last = follow(Agent().rollback(generation), as_json=as_json)
    asyncio.run(_await_succession())
    if not as_json:
        terminal.say(f"generation {last.generation} is {last.outcome}")


async def _await_succession() -> None:
    """A generation of another dom0 image brings that image back too."""
    from dom0.engine.docker import DockerEngine

    status = Agent().status()
    if status.generation is None or status.generation.dom0_image in ("", status.dom0_image):
        return
    engine = await DockerEngine.connect()
    try:
        await await_succession(engine, status.generation.dom0_image)
    finally:
        await engine.close()
