"""How much of what it was granted a scope uses, by what the Engine behind it and the kernel say."""

from __future__ import annotations

import msgspec

from dom0.socketproxy import budget, listing
from dom0.socketproxy.budget import Used
from dom0.socketproxy.registrations import Registration
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import LARGEST_OF_A_SCOPE, Upstream


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    running: int
    containers: int  # those that do not run too
    networks: int
    volumes: int
    kernel: Used | None  # null without a control group of its own, or where it cannot be read


async def ask(registration: Registration) -> Usage:
    """Raises Refused, EngineError, OSError where the Engine behind the socket does not answer."""
    scope, upstream = Scope(registration.scope), Upstream(registration.engine, largest=LARGEST_OF_A_SCOPE)
    try:
        await upstream.negotiate()
        containers, networks, volumes = [
            [row.get("State") async for row in listing.owned(upstream, scope, kind)] for kind in listing.KINDS
        ]
        group = registration.cgroup_parent
        kernel = await budget.used(upstream, group) if group else None
    finally:
        await upstream.close()
    return Usage(
        running=containers.count("running"),
        containers=len(containers),
        networks=len(networks),
        volumes=len(volumes),
        kernel=kernel,
    )
