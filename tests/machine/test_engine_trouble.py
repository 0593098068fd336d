"""An Engine that is started anew under running containers, and one that misses ends: dom0 finds out and mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.testing import chain
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0:
      ssh: {port: 2022, authorized_keys: []}
      rollout: {monitor: 1s, timeout: 60s}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        stop_grace_period: 20s
      reader:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        volumes: ["/run/docker.sock:/run/docker.sock"]
    """
SERVICES = ("box-web-1", "box-reader-1", "dom0-sshd")


@pytest.fixture
def machine(fresh_host: Callable[..., Host], tmp_path: Path) -> Machine:
    """On an Engine that makes its socket itself, and whose containers outlive it."""
    host = fresh_host(config={"live-restore": True}, outside=True)
    chain.provide(host)
    found = Machine(host, tmp_path)
    found.write(COMPOSE)
    found.up()
    found.until_good()
    return found


def names_of_socket(machine: Machine, container: str) -> str:
    """How many names the file has that the container has bound: none is left of an Engine's that has ended."""
    return machine.docker("exec", container, "stat", "-c", "%h", "/run/docker.sock", check=False).stdout.strip()


def test_an_engine_started_anew_has_everybody_again(machine: Machine) -> None:
    before = machine.lives(*SERVICES, "dom0")
    machine.host.stop_engine()
    machine.host.start_engine()
    machine.until(lambda: machine.lives("dom0") != {"dom0": before["dom0"]})
    machine.until(lambda: {names_of_socket(machine, name) for name in ("dom0", "dom0-sshd", "box-reader-1")} == {"1"})
    machine.until_good()
    machine.until(lambda: machine.status()["problems"] == [])
    assert machine.lives("box-web-1") == {"box-web-1": before["box-web-1"]}
    assert "nothing to do" in machine.up().stdout + machine.up().stderr


def test_an_end_that_the_engine_missed_is_seen(machine: Machine) -> None:
    before = machine.container("box-web-1")["State"]
    machine.host.kill_unnoticed(before["Pid"])
    machine.until(lambda: machine.container("box-web-1")["State"]["Pid"] not in (0, before["Pid"]))
    machine.until_good()
