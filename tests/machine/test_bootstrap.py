"""A machine from one loaded image: no checkout, no dom0 command on the host, and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.machines import Machine
from dom0.testing.pages import page

COMPOSE = """
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
        volumes: ["./app.conf:/etc/app.conf:ro"]
    """


def up(box: Machine) -> str:
    """As docs/images.md has it, what follows the load."""
    (text,) = (one.text for one in page("docs/images.md").blocks if "docker load --input dom0-base.tar" in one.text)
    return box.host.run(["sh", "-c", text.partition("\n")[2]], cwd=box.project).stdout


@pytest.mark.parametrize("config", [{}, CONTAINERD_STORE], ids=["any", "that of the base OS"])
def test_a_loaded_dom0_base_starts_the_machine_of_a_project(
    config: dict[str, object], machine: Machine, fresh_host: Callable[..., Host], tmp_path: Path
) -> None:
    archive, project = tmp_path / "dom0-base.tar", tmp_path / "box"
    machine.docker("save", "--output", str(archive), "dom0-base", "busybox:test")
    box = Machine(fresh_host(config=config), project)
    box.docker("load", "--input", str(archive))
    box.write(COMPOSE.format(version="1"), {"app.conf": "a = 1\n"})
    assert up(box).endswith("generation 1 is good\n")
    box.until_good(1)
    assert sorted(box.containers()) == ["box-web-1", "dom0"]
    box.write(COMPOSE.format(version="2"))
    assert up(box).endswith("generation 2 is good\n")
    box.until_good(2)
    assert box.variable("box-web-1", "VERSION") == "2"
    box.until(lambda: sorted(box.containers()) == ["box-web-1", "dom0"])
