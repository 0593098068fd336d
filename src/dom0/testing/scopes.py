"""Scoped sockets for tests: the real command, in front of a test host's Engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dom0.testing.hosts import Host


@contextmanager
def served(
    host: Host, directory: Path, grants: str = "{}", *, scope: str = "guest", engine: Path | None = None
) -> Iterator[Path]:
    """The socket of a scope with `grants` (YAML), served until the block ends; its log is `directory`/serve.log."""
    (directory / "grants.yaml").write_text(grants)
    socket = directory / "docker.sock"
    argv = [sys.executable, "-m", "dom0", "socket", "serve", "--scope", scope]
    argv += ["--grants", str(directory / "grants.yaml"), "--listen", str(socket)]
    argv += [] if engine else ["--cgroup-parent", f"/{host.cgroup}"]  # which is swept with the host
    environment = host.environment() | {"DOM0_RUN": str(directory / "run")}
    environment["DOCKER_HOST"] = f"unix://{engine or host.socket}"
    with (directory / "serve.log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=environment)
    with server:
        try:
            assert server.stdout is not None
            if not server.stdout.readline():
                raise RuntimeError((directory / "serve.log").read_text())
            yield socket
        finally:
            server.terminate()
            server.wait(60)
