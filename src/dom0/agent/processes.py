"""What the host's /proc says of containers that the Engine calls running. The root container sees it: `--pid host`.

An Engine misses the end of a process while its containerd restarts, and then calls it running for ever (seen on
Docker 26.1). And one that makes its socket itself makes another one at every start: with live-restore, containers that
have the old one bound run on, and reach nobody through it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

PROC = Path("/proc")
SOCKET = "docker.sock"
NEW_SOCKET = PROC / "1/root/run" / SOCKET  # where the Engine made it last, as the host sees it
_ENDED = ("Z", "X")  # states in /proc/PID/stat: waits for its parent, or not even that
_UNLINKED = f"/{SOCKET}//deleted"  # the root of a bind in /proc/PID/mountinfo whose file has no name any more


class Processes(Protocol):
    def has_ended(self, pid: int) -> bool: ...
    def has_old_socket(self, pid: int) -> bool:
        """Whether it has the socket of an Engine bound that has ended."""
        ...


class Unseen:
    """Where the host's processes cannot be seen: the Engine's word has to do."""

    def has_ended(self, pid: int) -> bool:
        return False

    def has_old_socket(self, pid: int) -> bool:
        return False


class HostProcesses:
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

    def has_old_socket(self, pid: int) -> bool:
        try:
            text = (self._proc / str(pid) / "mountinfo").read_text(errors="replace")
        except OSError:
            return False
        return any(line.split(" ", 4)[3].endswith(_UNLINKED) for line in text.splitlines())
