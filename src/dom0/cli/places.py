"""The two directories that dom0 has on a host, its socket, and whether they are those of the machine that is meant.

The machine is the one whose Engine is named (-H, DOCKER_HOST, a docker context).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from dom0.errors import Dom0Error, UsageError
from dom0.names import ROOT, Access, run_directory, state_directory


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


def is_login() -> bool:
    """Whether this is a login, or another container of a dom0 image that does not have the host's directories."""
    from dom0.images import recipe

    return recipe.BAKED.exists() and not (state_directory() / "generations").is_dir()


def go_where_files_are(group: str, name: str, *arguments: str, as_json: bool) -> None:
    """In a login, and for the machine of another Engine, become this command in the root container.

    Raises Dom0Error, EngineError.
    """
    if not is_here() or is_login():
        from dom0.cli import engine_client
        from dom0.run import become

        root = engine_client.container(ROOT)
        if root is None or not root.state.running:
            raise Dom0Error("dom0: does not run on that machine", hint="start it: dom0 up; or look: docker ps --all")
        terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        options = ["--json"] if as_json else []
        become(["docker", "exec", "--interactive", *terminal, ROOT, "dom0", group, name, *options, *arguments])


def agent_socket(access: Access = Access.ALL) -> Path:
    return run_directory() / access.socket


def forget_agent_sockets() -> None:
    """Remove the sockets of an agent that is gone, where nobody listens on them and we may."""
    from dom0.http import blocking

    for socket in map(agent_socket, Access):
        with contextlib.suppress(OSError):
            try:
                blocking.connect(str(socket)).close()
            except ConnectionRefusedError:
                if is_here():
                    socket.unlink()
