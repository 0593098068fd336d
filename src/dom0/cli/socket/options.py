"""What the commands about one scope have in common."""

from __future__ import annotations

import click


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from dom0.socketproxy import registrations

    try:
        return [scope for scope in registrations.known() if scope.startswith(incomplete)]
    except OSError:
        return []


name = click.argument("name", metavar="NAME", shell_complete=_complete)
