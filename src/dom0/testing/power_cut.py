"""A disk that loses its power: a file system on a loop device, which forgets what it has not written yet.

The file system is shut down without its log: what it had in memory never reaches the device, which is then mounted
again. It is mounted in a namespace of a process of ours alone: others that are made meanwhile would keep a copy of the
mount, and the file system running. Source: `FS_IOC_SHUTDOWN` of <linux/fs.h>.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from dom0.testing import file_systems, loop, owned
from dom0.testing.namespaces import spawn_inside, spawn_isolated

_SHUTDOWN = 0x8004587D
_WITHOUT_LOG = struct.pack("I", 2)
_MIB = {"ext4": 256, "xfs": 304}  # of the disk
_HOLD = ["sh", "-ec", "mount --make-rprivate /; echo; exec cat"]


class Disk:
    """Mounted at `path`, within `with`."""

    def __init__(self, kind: Literal["ext4", "xfs"]) -> None:
        self._kind = kind

    def __enter__(self) -> Disk:
        self._top = Path(tempfile.mkdtemp(prefix=f"{self._kind}-", dir=owned.run_root()))
        file_systems.make(self._top / "disk", self._kind, mib=_MIB[self._kind])
        self._at = self._top / "mounted"
        self._at.mkdir()
        self._loop = loop.Loop(self._top / "disk")
        self._holder = spawn_isolated(_HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.path = Path(f"/proc/{self._holder.pid}/root{self._at}")
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        """The mount ends with its namespace."""
        self._holder.communicate()
        self._loop.detach()
        owned.remove_directory(self._top)

    def cut(self) -> None:
        """From now on nothing reaches it, and what is open on it fails."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_LOG)
        finally:
            os.close(descriptor)

    def start(self) -> None:
        """After a cut, when nothing is open on it any more."""
        self._run("umount", str(self._at))
        self._mount()

    def _mount(self) -> None:
        self._run("mount", "-t", self._kind, str(self._loop.path), str(self._at))

    def _run(self, *argv: str) -> None:
        code = spawn_inside(self._holder.pid, argv).wait()
        assert code == 0, argv
