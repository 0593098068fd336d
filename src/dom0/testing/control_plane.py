"""An ambassador's control plane as a process of its own in a namespace of `wires`, and what asks it.

It ends with the test, also with one that is killed. Its sockets and its state are in a directory of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from dom0.ambassador.client import ask, decode
from dom0.ambassador.messages import Flows, History, Receipt, Request, Rewire, Show, State, Undo
from dom0.errors import Dom0Error
from dom0.forward.dataplane import Flow
from dom0.testing import owned
from dom0.testing.wires import PATIENCE, Node, eventually

T = TypeVar("T")
_COMMAND = (sys.executable, "-m", "dom0.ambassador.command")


class ControlPlane:
    """Use it as a context manager. `hosts` and `resolv_conf` replace the machine's own files for it."""

    def __init__(self, node: Node, environ: Mapping[str, str], *, hosts: str = "", resolv_conf: str = "") -> None:
        self._node = node
        self.environ = dict(environ)
        self.directory = Path(tempfile.mkdtemp(prefix="ambassador-", dir=owned.run_root()))
        self._files = {"/etc/hosts": hosts, "/etc/resolv.conf": resolv_conf}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        self.kill()
        owned.remove_directory(self.directory)

    def start(self) -> None:
        """Returns when it answers, and so has looked at everything once."""
        for path, content in self._files.items():
            if content:
                self.write(path, content)
        self._process = self._spawn("run")
        eventually(self._answers, "the control plane's first answer")

    def _spawn(self, *words: str, piped: int | None = None) -> subprocess.Popen[str]:
        binds = [f"mount --bind {self._mine(path)} {path}" for path, content in self._files.items() if content]
        script = "; ".join([*binds, 'exec "$@"'])
        argv = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "nsenter",
            f"--net={self._node.namespace}",
            "--",
            "unshare",
            "--mount",
            "--propagation",
            "private",
        ]
        return subprocess.Popen(
            [*argv, "sh", "-c", script, "sh", *_COMMAND, *words],
            env={**_without_links(os.environ), **self._variables()},
            stdout=piped,
            stderr=piped,
            text=True,
        )

    def command(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors of `dom0-ambassador WORDS`, as by `docker exec`."""
        process = self._spawn(*words, piped=subprocess.PIPE)
        output, errors = process.communicate()
        return process.returncode, output, errors

    def write(self, path: str, content: str) -> None:
        """In place, as the Engine does: a bind mount shows one inode."""
        self._mine(path).write_text(content)

    def kill(self) -> None:
        """With no warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def stop(self) -> int:
        """In good order; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait()
        self._process = None
        return code

    def restart(self, **environ: str) -> None:
        """Killed, and started again; with other variables if some are given."""
        self.kill()
        self.environ = environ or self.environ
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def state_file(self) -> Path:
        return self.directory / "state.json"

    @property
    def control(self) -> Path:
        return self.directory / "control.sock"

    @property
    def watch(self) -> Path:
        return self.directory / "watch.sock"

    def ask(self, request: Request, kind: type[T]) -> T:
        return ask(request, kind, path=self.control)

    def state(self) -> State:
        return self.ask(Show(), State)

    def states(self) -> Iterator[State]:
        """What a watcher is told, until the ambassador ends."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.watch))
            with connection.makefile("rb") as lines:
                for line in lines:
                    yield decode(line, State)

    def rewire(self, *to: str, **how: object) -> Receipt:
        return self.ask(Rewire(to=to, **how), Receipt)  # type: ignore[arg-type]

    def undo(self, **how: object) -> Receipt:
        return self.ask(Undo(**how), Receipt)  # type: ignore[arg-type]

    def history(self) -> list[Receipt]:
        return self.ask(History(), list[Receipt])

    def generations(self) -> list[int]:
        """Of the connections that are there."""
        return sorted(flow.generation for flow in self.ask(Flows(), list[Flow]))

    def targets(self) -> dict[str, tuple[str, ...]]:
        return {it.listener: it.targets for it in self.state().listeners}

    def problems(self) -> set[str]:
        """Their codes, without the rights that a test's namespace lacks."""
        return {problem.code for problem in self.state().problems} - {"ambassador-lacks"}

    def _variables(self) -> dict[str, str]:
        return {**self.environ, "DOM0_STATE": str(self.directory), "DOM0_RUN": str(self.directory)}

    def _mine(self, path: str) -> Path:
        return self.directory / Path(path).name

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it has ended"
        with contextlib.suppress(Dom0Error):
            return bool(self.state().version)
        return False


def run_once(node: Node, environ: Mapping[str, str], *words: str) -> tuple[int, str, str]:
    """As `ControlPlane.command`, where nothing runs yet."""
    plane = ControlPlane(node, environ)
    try:
        return plane.command(*words)
    finally:
        plane.remove()


def _without_links(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if "_PORT" not in name}
