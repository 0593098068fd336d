"""What the Engine says of itself: of a scope's own, and of the host no more than programs need to run."""

from __future__ import annotations

import hashlib
from typing import Any

from dom0.socketproxy import owned, shown
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.refusal import NOT_FOUND, UNAVAILABLE, Refused
from dom0.socketproxy.scope import LABEL

EVENT_FILTERS = ("container", "event", "image", "label", "network", "type", "volume", "scope")
INFO_KEPT = (
    *("Architecture", "CPUSet", "CPUShares", "CgroupDriver", "CgroupVersion", "CpuCfsPeriod", "CpuCfsQuota"),
    *("DefaultRuntime", "Driver", "DriverStatus", "IPv4Forwarding", "KernelVersion", "LoggingDriver", "MemTotal"),
    *("MemoryLimit", "NCPU", "OSType", "OSVersion", "OperatingSystem", "PidsLimit", "SecurityOptions"),
    *("ServerVersion", "SwapLimit", "SystemTime"),
)


async def ping(context: Context, _asked: Asked) -> Document:
    """It says which API to speak, and that images are built in the classic way."""
    major, minor = context.upstream.api
    headers = (("Api-Version", f"{major}.{minor}"), ("Builder-Version", "1"), ("Ostype", "linux"))
    return Document("OK", headers=headers)


async def version(context: Context, _asked: Asked) -> Document:
    reply = await context.upstream.ask("GET", "version")
    major, minor = context.upstream.api
    return Document(reply.document | {"ApiVersion": f"{major}.{minor}"}, status=reply.status)


async def info(context: Context, _asked: Asked) -> Document:
    reply = await context.upstream.ask("GET", "info")
    found: dict[str, Any] = reply.document
    kept = {key: found[key] for key in INFO_KEPT if key in found}
    states = [row["State"] async for row in owned.containers(context)]
    own = {
        "ID": hashlib.sha256(f"{found.get('ID')}{context.scope.path}".encode()).hexdigest()[:32],
        "Name": context.scope.name,
        "Labels": [f"{LABEL}={context.scope.path}"],
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "DockerRootDir": "/var/lib/docker",
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": ["json-file", "local"],
        },
        "Runtimes": {"runc": {"path": "runc"}},
        "Swarm": {"LocalNodeState": "inactive"},
    }
    return Document(kept | own, status=reply.status)


async def events(context: Context, asked: Asked) -> Call:
    """Filters name what the scope calls its own; whatever they let through is looked at once more."""
    wanted = Filters.read(asked.query.get("filters", "")).checked(EVENT_FILTERS)
    filters = wanted.without("label")
    for key in ("container", "network", "volume"):
        filters = filters.renamed(key, context.scope.long)
    query = {key: value for key, value in asked.query.items() if key != "stream"}  # as aiodocker has it
    query["filters"] = filters.written()

    def seen(line: dict[str, Any]) -> dict[str, Any] | None:
        found = shown.event(context.scope, line)
        return found if found and wanted.fit(found["Actor"].get("Attributes")) else None

    return Call(method="GET", path=("events",), query=query, line=seen)


async def no_swarm(_context: Context, _asked: Asked) -> Document:
    raise Refused(UNAVAILABLE, "This node is not a swarm manager.")


async def no_plugin(_context: Context, asked: Asked) -> Document:
    raise Refused(NOT_FOUND, f'plugin "{asked.names["plugin"]}" not found')


async def none(_context: Context, _asked: Asked) -> Document:
    return Document([])
