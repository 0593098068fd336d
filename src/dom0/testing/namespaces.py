"""Start a process in new or in another process's namespaces, as a direct child of ours.

Theory of operation: unshare(2) and setns(2) change only the calling *thread*. A thread that lives for one call enters
the namespaces and starts the child, which inherits them; the rest of this process stays where it is. Unlike
`nsenter --pid`, which stands between us and the command, the child is ours: signals reach it, `wait` tells its code,
and `kill -9` of it is a `kill -9` of the command. It has a session of its own: a Ctrl-C at our terminal is
for us alone, and we end it in good order.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from dom0.forward.place import in_own_thread

Stream = int | IO[bytes] | None
Child = subprocess.Popen[bytes]

# <linux/sched.h>. os.unshare and os.setns came with Python 3.12.
_CLONE_FS = 0x00000200
_FLAGS = {"mnt": 0x00020000, "uts": 0x04000000, "ipc": 0x08000000, "pid": 0x20000000, "net": 0x40000000}
_libc = ctypes.CDLL(None, use_errno=True)


def spawn_isolated(argv: Sequence[str], *, stdin: Stream = subprocess.DEVNULL, stdout: Stream = None) -> Child:
    """Start `argv` as process 1 of new pid, mount, network, UTS and IPC namespaces."""

    def start() -> Child:
        flags = 0
        for flag in _FLAGS.values():
            flags |= flag
        _call("unshare", flags)
        return subprocess.Popen(list(argv), stdin=stdin, stdout=stdout, start_new_session=True)

    return in_own_thread(start)


def spawn_inside(
    pid: int,
    argv: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Child:
    """Start `argv` in the namespaces of process `pid` (its root directory, its view of /proc, its network)."""

    def start() -> Child:
        enter(pid, "pid", "net", "uts", "ipc", "mnt")
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
        )

    return in_own_thread(start)


def enter(pid: int, *names: str) -> None:
    """With this thread, namespaces of process `pid`."""
    _call("unshare", _CLONE_FS)  # a thread that shares its file-system view may not enter a mount namespace
    for name in names:
        handle = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", handle, _FLAGS[name])
        finally:
            os.close(handle)
    os.chdir("/")


def _call(function: str, *args: int) -> None:
    if getattr(_libc, function)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
