"""`dom0 schema`: what programs read of dom0, described for tools."""

from __future__ import annotations

import click

from dom0 import terminal


@click.command(name="schema")
@click.argument("of", type=click.Choice(["project", "api"]))
def command(of: str) -> None:
    """Print a description for tools: the JSON schema of a project's Compose files, or the agent's API as OpenAPI 3.1.

    $ dom0 schema project > ~/dom0.schema.json
    $ dom0 schema api > openapi.json
    """
    if of == "project":
        from dom0.compose import schema

        terminal.say_json(schema.project())
        return
    from dom0.agent.api import ROUTES
    from dom0.agent.openapi import describe

    terminal.say_json(describe(ROUTES))
