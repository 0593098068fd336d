"""A machine whose images were built elsewhere and brought as a file: to an Engine that keeps them in another way, and
to one that has no network and makes more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import more_images
from dom0.testing.hosts import CONTAINERD_STORE, PATIENCE, Host
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


@pytest.mark.parametrize("config", [{}, CONTAINERD_STORE], ids=["any", "that of the base OS"])
def test_a_machine_without_a_network_makes_images_of_what_it_was_brought(
    config: Mapping[str, Any], machine: Machine, fresh_host: Callable[..., Host], tmp_path: Path
) -> None:
    """dom0 and an image to work in, on dom0-base and dom0-rootfs, typed in its own login."""
    file = tmp_path / "machine.tar"
    machine.write(more_images.compose("box", port=2022, dev="busybox:test"))
    machine.build()
    machine.dom0("image", "save", str(file))
    brought = Machine(fresh_host(config=config), tmp_path)
    brought.docker("load", "--input", str(file))
    brought.run_by_hand()
    brought.until_good(1)
    typed = more_images.script(more_images.compose("box", port=2022), by_dockerfile=True)
    said = brought.host.run(["docker", "exec", "dom0-sshd", "sh", "-c", typed], timeout=PATIENCE)
    more_images.check(said.stdout + said.stderr, generation=3)
