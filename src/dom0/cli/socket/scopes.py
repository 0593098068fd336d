"""The scopes that are registered on this host, as commands show them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from dom0.engine import address
from dom0.errors import EngineError, UsageError
from dom0.socketproxy import partial, refusals, registrations, usage
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.registrations import Registered
from dom0.socketproxy.usage import Usage


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    scope: str
    socket: str
    engine: str  # the socket behind it
    served: bool
    pid: int  # of the server, as seen from here; 0 where it cannot be seen, or there is none
    since: float  # seconds since the epoch
    grants: dict[str, Any]  # all of them, with their defaults: `images.use`, `containers`, …
    usage: Usage | None  # null where the Engine does not answer
    error: str  # why it does not
    refusals: int


async def shown(found: Registered) -> Shown:
    """Raises OSError."""
    registration = found.registration
    used, error = None, ""
    try:
        used = await usage.ask(registration)
    except (Refused, EngineError, OSError) as failed:
        error = str(failed)
    return Shown(
        scope=registration.scope,
        socket=registration.socket,
        engine=registration.engine,
        served=found.is_served,
        pid=registrations.process_of(registration.scope),
        since=registration.since,
        grants=dict(partial.flat(registration.grants)),
        usage=used,
        error=error,
        refusals=sum(one.times for one in refusals.read(registrations.directory_of(registration.scope))),
    )


async def all_shown() -> list[Shown]:
    """Raises Dom0Error, OSError."""
    return list(await asyncio.gather(*(shown(registrations.read(scope)) for scope in registrations.known())))


def engine_socket() -> str:
    """Of the Engine that is meant. Raises UsageError unless it is on this host, EngineUnreachable."""
    found = address.find(None, os.environ, Path.home())
    if not found.socket:
        raise UsageError(
            f"{found.text}: only the socket of an Engine on this host can be scoped",
            hint="run it there, or set DOCKER_HOST=unix:///path/to/docker.sock",
        )
    return found.socket
