"""Who asks the agent, as the kernel says it of a connection: a user, and in which container."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from dom0.http.channel import PeerCredentials

PROC = Path("/proc")
_CONTAINER = re.compile(r"([0-9a-f]{64})(?:\.scope)?$", re.MULTILINE)


def say(peer: PeerCredentials | None, containers: Mapping[str, str], proc: Path = PROC) -> str:
    """`uid 1000 in dom0-sshd`. `containers`: name -> ID; one that is not there is called by its ID.

    A process that has ended already, or that our /proc does not show, has a user only.
    """
    if peer is None:
        return "unknown"
    group = ""
    with contextlib.suppress(OSError):
        group = (proc / str(peer.pid) / "cgroup").read_text(errors="replace")
    match = _CONTAINER.search(group)
    if match is None:
        return f"uid {peer.uid}"
    name = next((name for name, id_ in containers.items() if id_ == match[1]), match[1][:12])
    return f"uid {peer.uid} in {name}"
