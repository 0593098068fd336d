"""`service:NAME` in a create body: another service whose namespace or volumes the container shares. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace

from dom0.engine.bodies import HostConfig

PARENT = "service:"
_REFERENCE = re.compile(f"^{PARENT}([^:]+)")


def with_parents(host: HostConfig, parents: Mapping[str, str]) -> HostConfig:
    """`host` with the container IDs of `parents` in the place of its references."""

    def shared(mode: str) -> str:
        return _REFERENCE.sub(lambda match: f"container:{parents[match[1]]}", mode)

    return replace(
        host,
        network_mode=shared(host.network_mode),
        ipc_mode=shared(host.ipc_mode),
        pid_mode=shared(host.pid_mode),
        volumes_from=tuple(_REFERENCE.sub(lambda match: parents[match[1]], source) for source in host.volumes_from),
    )
