"""What the host's /proc says of containers that the Engine calls running. The root container sees it: `--pid host`.

An Engine misses the end of a process while its containerd restarts, and then calls it running for ever (seen on
Docker 26.1). And one that makes its socket itself makes another one at every start: with live-restore, containers that
have the old one bound run on, and reach nobody through it. So it is with the socket of a scope that was made anew.
"""

from __future__ import annotations

import time
from pathlib import Path

from dom0.engine.values import Container
from dom0.names import ENGINE_SOCKET_INSIDE, scopes_directory

PROC = Path("/proc")
SOCKET = "docker.sock"
NEW_SOCKET = PROC / "1/root/run" / SOCKET  # where the Engine made it last, as the host sees it
_ENDED = ("Z", "X")  # states in /proc/PID/stat: waits for its parent, or not even that
_UNLINKED = f"/{SOCKET}//deleted"  # the root of a bind in /proc/PID/mountinfo whose file has no name any more


class Processes:
    """Where the host's cannot be seen: the Engine's word has to do."""

    def has_ended(self, pid: int) -> bool:
        return False

    def has_old_socket(self, container: Container) -> bool:
        """Whether it has an Engine's socket bound in whose place is another one now."""
        return False


class SeenFromScope(Processes):
    """In the scope of another machine: what was started before the socket was made that it has bound, has another."""

    def __init__(self, socket: Path = Path(ENGINE_SOCKET_INSIDE), scopes: Path | None = None) -> None:
        self._socket = socket
        self._scopes = scopes or scopes_directory()

    def has_old_socket(self, container: Container) -> bool:
        bound = (mount.source for mount in container.mounts if mount.source.endswith(f"/{SOCKET}"))
        # if the clock went back, another start would change nothing
        return any(container.started < self._made(path) <= time.time() for path in bound)

    def _made(self, bound: str) -> float:
        path = Path(bound)
        try:
            return (path if path.is_relative_to(self._scopes) else self._socket).stat().st_mtime
        except OSError:
            return 0.0


class HostProcesses(Processes):
    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc

    def has_ended(self, pid: int) -> bool:
        try:
            text = (self._proc / str(pid) / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            return False
        return text.rpartition(") ")[2][:1] in _ENDED

    def has_old_socket(self, container: Container) -> bool:
        return self.has_old_socket_at(container.pid)

    def has_old_socket_at(self, pid: int) -> bool:
        try:
            text = (self._proc / str(pid) / "mountinfo").read_text(errors="replace")
        except OSError:
            return False
        return any(line.split(" ", 4)[3].endswith(_UNLINKED) for line in text.splitlines())
