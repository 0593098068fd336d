"""Stacks as people have them: under Compose, adopted, changed, rolled back, rebooted, killed at, given back.

Every byte that a container or a person wrote is accounted for after each step, and nobody ever writes beside another.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.testing import api, ledger
from dom0.testing.hosts import Host
from dom0.testing.ledger import Witness
from dom0.testing.machines import Machine

CASES = Path(__file__).with_name("cases")
OWNERS = {("media", "media"): (1000, 1000)}  # a directory of a stack that belongs to a user
MAIN = ("compose.yaml", "docker-compose.yml", "base.yaml")
HASTE = "x-dom0: {rollout: {monitor: 1s}}"  # else half of the time would pass with watching what is well


@pytest.fixture(scope="module")
def prepared(session_host: Host, chain_images: None, tmp_path_factory: pytest.TempPathFactory) -> Host:
    ledger.provide(session_host, tmp_path_factory.mktemp("ledger"))
    return session_host


class Life:
    """One stack in a directory of its own, and what was seen of its data."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.machine = Machine(host, directory)
        self.witness = Witness(host)
        self.host = host
        self.directory = directory
        self.version = 1

    def compose(self, *arguments: str) -> None:
        self.host.run(["docker", "compose", *arguments], cwd=self.directory, timeout=300)

    def change(self) -> None:
        """What a person edits: a setting of a service."""
        self.version += 1
        for path in self.directory.rglob("*.y*ml"):
            text = path.read_text()
            for old, new in (('VERSION: "{}"', 'VERSION: "{}"'), ("VERSION={}", "VERSION={}")):
                text = text.replace(old.format(self.version - 1), new.format(self.version))
            path.write_text(text)

    def runs(self, version: int) -> bool:
        rows = self.host.docker("ps", "--quiet", "--filter", "label=com.docker.compose.service").stdout.split()
        environments = self.host.docker("inspect", "--format", "{{.Config.Env}}", *rows).stdout if rows else ""
        found = {word.strip("[]") for word in environments.split() if word.startswith(("VERSION=", "[VERSION="))}
        return found == {f"VERSION={version}"}

    def goes_on(self) -> None:
        """All that wrote before writes now, where it wrote."""
        self.machine.until(self.witness.look)


@pytest.fixture(params=sorted(path.name for path in CASES.iterdir()))
def life(request: pytest.FixtureRequest, prepared: Host, tmp_path: Path) -> Iterator[Life]:
    name = request.param
    images = api.images(prepared.socket)
    directory = tmp_path / name
    shutil.copytree(CASES / name, directory)
    for (stack, part), (uid, gid) in OWNERS.items():
        for path in (directory / part, *(directory / part).rglob("*")) if stack == name else ():
            os.chown(path, uid, gid)
    for path in directory.glob("secrets/*"):
        path.chmod(0o600)
    main = next(file for file in MAIN if (directory / file).exists())
    with (directory / main).open("a") as opened:
        opened.write(f"\n{HASTE}\n")
    if name == "override":
        prepared.docker("volume", "create", "site-data")
        prepared.docker("network", "create", "shared")
    yield Life(prepared, directory)
    prepared.clean(keep=images)


@pytest.mark.timeout(1200)
def test_a_stack_keeps_every_byte_from_compose_to_dom0_and_back(life: Life) -> None:
    machine = life.machine

    life.compose("up", "--detach", "--build")
    life.goes_on()

    machine.dom0("up", "--adopt", "--wait", timeout=300)
    machine.until_good()
    life.goes_on()
    assert life.runs(1)

    life.change()
    machine.dom0("up", "--wait", timeout=300)
    life.goes_on()
    assert life.runs(2)

    machine.dom0("rollback", timeout=300)
    life.goes_on()
    assert life.runs(1)

    life.host.restart_engine()
    machine.until_good()
    life.goes_on()
    assert life.runs(1)

    for seed in range(3):
        _kill_something(life, random.Random(f"{life.directory.name}-{seed}"))  # noqa: S311 -- moments, no secrets
        # what was begun may go on: busy, and each `up` takes its time
        machine.until(lambda: machine.dom0("up", "--wait", check=False, timeout=300).code == 0, within=300)
        life.goes_on()
        assert life.runs(life.version)

    machine.dom0("down", timeout=300)
    life.compose("up", "--detach", "--build")
    life.goes_on()
    assert life.runs(life.version)


def _kill_something(life: Life, chance: random.Random) -> None:
    """Kill -9 of the command, the agent or the Engine at a random moment of a change."""
    life.change()
    command = life.machine.begin("up")
    delay = chance.uniform(0.1, 4)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(delay)
    match chance.choice(["command", "agent", "engine"]):
        case "command":
            command.kill()
        case "agent":
            _kill_process_of(life, "dom0")
        case "engine":
            life.host.kill_engine()
            life.host.start_engine()
    command.kill()
    command.wait(60)
    life.machine.until(lambda: life.machine.status() is not None)


def _kill_process_of(life: Life, container: str) -> None:
    """As the kernel's memory killer does. After a `docker kill`, a person's word, nothing is started again."""
    with contextlib.suppress(OSError, api.EngineRefused):
        if pid := life.machine.container(container)["State"]["Pid"]:
            life.host.run(["kill", "-KILL", str(pid)], check=False)
