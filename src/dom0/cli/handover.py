"""`dom0 handover`: what the short-lived helper container runs. Persons do not call it."""

from __future__ import annotations

import click

from dom0.cli import terminal


@click.command("handover", hidden=True)
@click.argument("image", metavar="IMAGE_ID")
def command(image: str) -> None:
    """Put a root container of IMAGE_ID in the place of the present one, or the present one back.

    It ends with 0 however that went; anything else means that it was cut off, and the Engine starts it again.

    Example: dom0 handover sha256:0123…
    """
    import asyncio

    asyncio.run(_run(image))


async def _run(image: str) -> None:
    from dom0.agent import handover
    from dom0.engine.docker import DockerEngine

    engine = await DockerEngine.connect()
    try:
        await handover.run_helper(engine, image, terminal.say)
    finally:
        await engine.close()
