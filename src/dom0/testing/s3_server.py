"""An S3 server that asks for a signature: rclone's, of the tests' lock file, before a directory. A bucket is a
directory in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from dom0.testing.hosts import Host, until

PORT = 9123
KEY, SECRET = "AKBOX", "s3-secret-of-the-test"


class S3Server:
    """On the Engine's bridge of `host`, where containers reach it as `url`; use it as a context manager."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self._directory = directory
        found = host.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
        self._address = f"{found.stdout.strip()}:{PORT}"
        self.url = f"http://{self._address}"
        self.start()

    def start(self) -> None:
        argv = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", "--addr", self._address]
        # A test may change the directory itself. With no time at all it forgets again and again, a processor's worth.
        argv += ["--dir-cache-time", "100ms", "--config", os.devnull, str(self._directory)]
        own = {"RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"'}  # a line of CSV
        self._process = self._host.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=own)
        place, port = self._address.split(":")
        reached = f"exec 3<>/dev/tcp/{place}/{port}"
        until(lambda: self._host.run(["bash", "-c", reached], check=False).code == 0)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> S3Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
