"""`dom0 socket stop` and `dom0 socket rm`: take back what a scope was granted, with all that was made through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from dom0 import terminal
from dom0.cli.socket import options

if TYPE_CHECKING:
    from dom0.socketproxy.scope import Scope
    from dom0.socketproxy.subtree import Done
    from dom0.socketproxy.upstream import Upstream

_JSON = "A list of objects: action, kind, name, error."


@click.command("stop")
@options.name
@click.option("--json", "as_json", is_flag=True, help=_JSON)
def stop(name: str, as_json: bool) -> None:
    """Stop all containers of a scope, and of the scopes inside it. Nothing is deleted.

    First nothing new can be started in it, then everything is frozen, then stopped in good order. No restart of the
    Engine starts it again; its socket is served as before.

    $ dom0 socket stop guest
    """
    from dom0.socketproxy import subtree

    _say(name, asyncio.run(_on_engine(name, subtree.stop)), as_json=as_json)


@click.command("rm")
@options.name
@click.option("-v", "--volumes", is_flag=True, help="Delete its volumes too, with their data.")
@click.option("--json", "as_json", is_flag=True, help=_JSON)
def rm(name: str, volumes: bool, as_json: bool) -> None:
    """Stop a scope, and remove its containers and networks, those of the scopes inside it too.

    Volumes stay unless --volumes is said. An orchestrator that is a service of a project is stopped, and stays. If
    nobody serves the scope any more, its control group goes too.

    $ dom0 socket rm guest
    $ dom0 socket rm guest --volumes
    """
    from dom0.socketproxy import subtree

    async def remove(upstream: Upstream, scope: Scope) -> list[Done]:
        done = await subtree.remove(upstream, scope, volumes=volumes)
        if (left := await subtree.volumes(upstream, scope)) and not as_json:
            terminal.say(f"volumes that stay: {', '.join(left)}")
        return done

    _say(name, asyncio.run(_on_engine(name, remove)), as_json=as_json)


async def _on_engine(name: str, act: Callable[[Upstream, Scope], Awaitable[list[Done]]]) -> list[Done]:
    """Raises UsageError for a scope that nothing is known of, EngineUnreachable, and what `act` does."""
    from dom0.cli.socket.scopes import engine_socket
    from dom0.errors import EngineUnreachable, UsageError
    from dom0.socketproxy import registrations, subtree
    from dom0.socketproxy.refusal import Refused
    from dom0.socketproxy.scope import Scope
    from dom0.socketproxy.upstream import LARGEST_OF_A_SCOPE, Upstream

    scope, upstream = Scope(name), Upstream(engine_socket(), largest=LARGEST_OF_A_SCOPE)
    try:
        await upstream.negotiate()
        if name not in (there := await subtree.known(upstream)) and not registrations.directory_of(name).is_dir():
            hint = f"there are: {', '.join(sorted(there))}" if there else "there is none in this Engine"
            raise UsageError(f"{name}: no such scope", hint=hint)
        return await act(upstream, scope)
    except Refused as refused:
        raise EngineUnreachable(f"{upstream.socket}: {refused.message}", hint="dom0 doctor") from refused
    finally:
        await upstream.close()


def _say(name: str, done: list[Done], *, as_json: bool) -> None:
    """Raises Dom0Error for what was not done."""
    from dom0.errors import Dom0Error

    lines = [f"{one.action} {one.kind} {one.name}{f': {one.error}' if one.error else ''}" for one in done]
    terminal.say_done(done, *(lines or [f"{name}: nothing to do"]), as_json=as_json)
    if failed := [one.name for one in done if one.error]:
        raise Dom0Error(f"{name}: not all was done: {', '.join(failed)}", hint="what the Engine says is above")
