"""The agent as a process on a host, outside of a container: quick to start again after an edit, easy to kill."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dom0.testing import api
from dom0.testing.machines import Machine
from dom0.testing.namespaces import Child

SOCKET = "/run/dom0/dom0.sock"


class BareAgent:
    """Its project is in `etc`, as in an image; `write` its Compose file and other files."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.etc = Path(machine.project) / "etc"
        self.log = Path(machine.project) / "agent.log"
        self._process: Child | None = None

    def write(self, compose: str, files: Mapping[str, str] = {}) -> None:
        for name, text in {"compose.d/50-box.yaml": compose, **files}.items():
            path = self.etc / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def start(self) -> None:
        environment = {"DOM0_ETC": str(self.etc), "DOM0_LOG": "info"}
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "dom0", "agent"]
            self._process = self.machine.host.popen(argv, env=environment, stdout=log, stderr=log)
        self.machine.until(self.machine.status)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Raises EngineRefused with what the agent refused."""
        return api.request(self.machine.host.path(SOCKET), method, path, body)
