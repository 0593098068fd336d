"""The two directories that dom0 has on a host, its socket, and whether they are those of the machine that is meant.

The machine is the one whose Engine is named (-H, DOCKER_HOST, a docker context).
"""

from __future__ import annotations

import os
from pathlib import Path

from dom0.errors import UsageError


def is_here() -> bool:
    """Whether the Engine is the usual one of this machine, or this machine's dom0 is named by DOM0_RUN.

    Another socket may be forwarded from anywhere. Raises EngineUnreachable for an address that is none.
    """
    if os.environ.get("DOM0_RUN"):
        return True
    from dom0.engine import address

    found = address.find(None, os.environ, Path.home())
    usual = address.DEFAULT.removeprefix("unix://")
    return bool(found.socket) and os.path.realpath(found.socket) == os.path.realpath(usual)


def require_here(what: str) -> None:
    """Raises UsageError where `what` is on another machine."""
    if not is_here():
        raise UsageError(
            f"{what}: is on the machine of the Engine that was named, and this is another one",
            hint="run the command there, or in its root container: docker exec -it dom0 dom0 …",
        )


def state_directory() -> Path:
    return Path(os.environ.get("DOM0_STATE") or "/var/lib/dom0")


def run_directory() -> Path:
    return Path(os.environ.get("DOM0_RUN") or "/run/dom0")


def agent_socket() -> Path:
    return run_directory() / "dom0.sock"
