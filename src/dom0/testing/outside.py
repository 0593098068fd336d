"""Let a network namespace reach what this machine reaches: slirp4netns, user-mode networking.

Connections leave as this machine's own; nothing of the machine is routed, translated or changed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PROGRAM = "slirp4netns"
NAMESERVER = "10.0.2.3"  # slirp4netns answers there with this machine's own resolver


class Outside:
    """A `tap0` in the network namespace of process `pid`, with a default route. It ends when we do."""

    def __init__(self, pid: int, log: Path) -> None:
        ready, tell_ready = os.pipe()
        ended, self._lifeline = os.pipe()
        try:
            options = ["--configure", "--mtu=65520", "--disable-host-loopback"]
            handles = [f"--ready-fd={tell_ready}", f"--exit-fd={ended}"]
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [PROGRAM, *options, *handles, str(pid), "tap0"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(tell_ready, ended),
                )
        finally:
            os.close(tell_ready)
            os.close(ended)
        with open(ready, "rb") as answer:  # noqa: PTH123 -- a file descriptor
            if answer.read(1) != b"1":
                self.stop()
                raise RuntimeError(f"{PROGRAM} did not start, see {log}")

    def stop(self) -> None:
        os.close(self._lifeline)
        self._process.wait(20)
