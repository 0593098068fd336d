"""The agent killed again and again while what is asked of it changes: it always ends at what was asked last."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import api
from dom0.testing.foreign import Foreign
from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine
from dom0.testing.namespaces import Child

COMPOSE = """
name: box
x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}}}
services:
  one:
    image: busybox:test
    command: ["sleep", "100000"]
    init: true
    environment: {{VERSION: "{version}"}}
  two:
    image: busybox:test
    command: ["sleep", "100000"]
    init: true
    environment: {{VERSION: "{version}"}}
    volumes: ["kept:/kept"]
    depends_on: [one]
volumes: {{kept: {{}}}}
"""
ROUNDS = 12
LONGEST_LIFE = 2.5  # seconds; a generation takes about two to be good
SERVICES = ("box-one-1", "box-two-1")


class Agent:
    """The agent's process on the host, outside of a container, with a project in a directory."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.layer = Path(machine.project) / "etc" / "compose.d" / "50-box.yaml"
        self.layer.parent.mkdir(parents=True, exist_ok=True)
        self.layer.write_text(COMPOSE.format(version="none"))
        self._process: Child | None = None

    def start(self) -> None:
        environment = {"DOM0_ETC": str(self.layer.parents[1]), "DOM0_LOG": "warning"}
        self._process = self.machine.host.popen([sys.executable, "-m", "dom0", "agent"], env=environment)
        self.machine.until(self.machine.status)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._process = None

    def ask_for(self, version: str, *, patience: float) -> list[dict[str, Any]]:
        """Ask for the project as of `version`; the lines that came within `patience` seconds or until an outcome."""
        self.layer.write_text(COMPOSE.format(version=version))
        socket = self.machine.host.path("/run/dom0/dom0.sock")
        text = ""
        with contextlib.suppress(OSError):
            text = str(api.request(socket, "POST", "/v1/up", {}, timeout=patience))
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def end(self) -> None:
        if self._process is not None:
            self.kill()


@pytest.fixture
def agent(machine: Machine) -> Iterator[Agent]:
    agent = Agent(machine)
    yield agent
    agent.end()


def versions(machine: Machine) -> set[str]:
    return {machine.variable(name, "VERSION") for name in SERVICES}


@pytest.mark.parametrize("seed", [1, 2])
def test_whenever_it_is_killed_it_ends_at_what_was_asked_last(
    machine: Machine, foreign: Foreign, agent: Agent, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 -- a test's dice
    for number in range(ROUNDS):
        agent.start()
        agent.ask_for(f"{seed}-{number}", patience=chance.uniform(0.05, LONGEST_LIFE))
        agent.kill()
        time.sleep(chance.uniform(0, 0.2))  # the moment is what is tried here, nothing is waited for
    agent.start()
    machine.until(lambda: machine.status()["converged"])
    agent.ask_for(f"{seed}-last", patience=60)
    machine.until_good()
    assert versions(machine) == {f"{seed}-last"}
    ours = {name for name in machine.containers() if "foreign" not in name}
    assert ours == set(SERVICES)
    assert foreign.is_untouched()
