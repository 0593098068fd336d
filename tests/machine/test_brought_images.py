"""A machine whose images were built elsewhere and brought as a file, to an Engine that keeps them in another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0:
      rollout: {{monitor: 1s, timeout: 60s}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
    """


def save(machine: Machine, version: str, file: Path) -> None:
    machine.write(COMPOSE.format(version=version))
    machine.build()
    machine.dom0("image", "save", str(file))


def test_the_next_version_arrives_as_the_first_one_did(
    machine: Machine, fresh_host: Callable[..., Host], tmp_path: Path
) -> None:
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    save(machine, "1", first)
    save(machine, "2", second)
    brought = Machine(fresh_host(config=CONTAINERD_STORE), tmp_path)
    brought.docker("load", "--input", str(first))
    brought.run_by_hand()
    brought.until_good(1)
    brought.docker("load", "--input", str(second))
    assert brought.dom0("up", "--no-build", "--wait").stdout.endswith("generation 2 is good\n")
    assert "VERSION=2" in brought.container("box-web-1")["Config"]["Env"]
    assert brought.container("dom0")["Image"] == brought.image_id("dom0:latest")
