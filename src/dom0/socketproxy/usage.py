"""How much of what it was granted a scope uses, by what the Engine behind it and the kernel say."""

from __future__ import annotations

from typing import Any

import msgspec

from dom0.socketproxy import budget, shown
from dom0.socketproxy.budget import Used
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.registry import Registration
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Upstream


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    running: int
    containers: int  # those that do not run too
    networks: int
    volumes: int
    kernel: Used | None  # null without a control group of its own, or where it cannot be read


async def ask(registration: Registration) -> Usage:
    """Raises Refused, EngineError, OSError where the Engine behind the socket does not answer."""
    scope, upstream = Scope(registration.scope), Upstream(registration.engine)
    try:
        await upstream.negotiate()
        containers = await _rows(upstream, "containers", "json")
        networks = await _rows(upstream, "networks")
        volumes = await _rows(upstream, "volumes")
        group = registration.cgroup_parent
        kernel = await budget.used(upstream, group) if group else None
    finally:
        await upstream.close()
    own = [row for row in containers if scope.owns(shown.own_name(row), row["Labels"])]
    return Usage(
        running=sum(row["State"] == "running" for row in own),
        containers=len(own),
        networks=sum(scope.owns(row["Name"], row["Labels"]) for row in networks),
        volumes=sum(scope.owns_volume(row["Name"], row["Labels"]) for row in volumes),
        kernel=kernel,
    )


async def _rows(upstream: Upstream, *path: str) -> list[dict[str, Any]]:
    """Raises Refused."""
    reply = await upstream.ask("GET", *path, query={"all": "1"} if path[0] == "containers" else {})
    if reply.status != 200:
        said = (reply.document or {}).get("message", reply.status)
        raise Refused(reply.status, f"the Engine behind this socket does not list its {path[0]}: {said}")
    return list((reply.document["Volumes"] or ()) if path == ("volumes",) else reply.document)
