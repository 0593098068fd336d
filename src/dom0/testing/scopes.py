"""Scoped sockets for tests: the real command, in front of a test host's Engine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dom0.run import CommandFailed
from dom0.testing.escape.raw import Client
from dom0.testing.hosts import Host


def docker(
    host: Host, socket: Path, *arguments: str, stdin: str = "", check: bool = True, patience: float = 120
) -> subprocess.CompletedProcess[str]:
    """`docker` of the host through `socket`."""
    environment = host.environment() | {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}
    argv = ["docker", *arguments]
    ended = subprocess.run(
        argv, env=environment, input=stdin, capture_output=True, text=True, timeout=patience, check=False
    )
    if check and ended.returncode != 0:
        raise CommandFailed(argv, ended.returncode, ended.stdout + ended.stderr)
    return ended


@contextmanager
def served(
    host: Host, directory: Path, grants: str = "{}", *, scope: str = "guest", engine: Path | None = None
) -> Iterator[Path]:
    """The socket of a scope with `grants` (YAML), served until the block ends; its log is `directory`/serve.log."""
    (directory / "grants.yaml").write_text(grants)
    socket = directory / "docker.sock"
    argv = ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "dom0", "socket", "serve", "--scope", scope]
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


class Together:
    """One process that serves a scope for each file in its directory, as its log in `directory`/serve.log says."""

    def __init__(self, host: Host, directory: Path, grants: Mapping[str, str], *, holder: Path | None = None) -> None:
        self.run = directory / "run"
        self.sockets = holder or self.run / "scopes"
        self._files = directory / "scopes"
        self._files.mkdir()
        for scope, text in grants.items():
            self.write(scope, text)
        argv = ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", "dom0", "socket", "serve"]
        argv += ["--scopes", str(self._files)]
        argv += ["--cgroup-parent", f"/{host.cgroup}"]
        argv += ["--holder", str(holder)] if holder else []
        environment = host.environment() | {"DOM0_RUN": str(self.run), "DOCKER_HOST": f"unix://{host.socket}"}
        with (directory / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=environment)

    def write(self, scope: str, text: str) -> None:
        """Its grants (YAML), which take effect with the next `reload`."""
        (self._files / f"{scope}.yaml").write_text(text)

    def remove(self, scope: str) -> None:
        (self._files / f"{scope}.yaml").unlink()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def await_served(self, *scopes: str) -> None:
        """Until each was begun to be served, in any order, since the last call."""
        assert self.process.stdout is not None
        said = {self.process.stdout.readline() for _ in scopes}
        assert said == {f"scope /{scope}: {self.socket(scope)}\n".encode() for scope in scopes}

    def socket(self, scope: str) -> Path:
        return self.sockets / scope / "docker.sock"

    def __enter__(self) -> Together:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)


class Scoped:
    """The host's docker command through the socket of a scope."""

    def __init__(self, host: Host, path: Path) -> None:
        self.path = path
        self.client = Client(path)
        self.host = host

    def docker(self, *arguments: str, check: bool = True, stdin: str = "") -> str:
        ended = self.run(*arguments, stdin=stdin)
        assert not check or ended.returncode == 0, ended.stderr
        return ended.stdout + ended.stderr

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return docker(self.host, self.path, *arguments, stdin=stdin, check=False)
