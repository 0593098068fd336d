"""`dom0 handover`: what the short-lived helper container runs. Not for people."""

from __future__ import annotations

import click

from dom0 import terminal
from dom0.cli.engine_client import on_engine


@click.command("handover", hidden=True)
@click.argument("image", metavar="IMAGE_ID")
def command(image: str) -> None:
    """Put a root container of IMAGE_ID in the place of the present one, or the present one back.

    It ends with 0 however that went; anything else means that it was cut off, and the Engine starts it again.

    Example: dom0 handover sha256:0123…
    """
    from dom0.agent.handover import run_helper

    on_engine(lambda engine: run_helper(engine, image, terminal.say))
