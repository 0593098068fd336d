"""`dom0 notify-send`: one message to one place, from standard input, in a process of its own."""

from __future__ import annotations

import sys

import click
import msgspec


@click.command(name="notify-send", hidden=True)
def command() -> None:
    """What the agent runs to tell a person something; see x-dom0.notify."""
    from dom0.agent.deliver import Delivery, deliver

    deliver(msgspec.json.decode(sys.stdin.buffer.read(), type=Delivery))
