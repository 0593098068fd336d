"""A machine whose images were built elsewhere and brought as a file: to an Engine that keeps them in another way, and
to one that has no network and makes more of them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.machines import PATIENCE, Machine

NAMES = ("dom0-rootfs", "dom0-base", "dom0:latest", "my-tools")

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


LOGIN = """
    name: box
    x-dom0:
      ssh: {{port: 2022}}
      home: {{}}
      dev: {{image: "{dev}", command: ["true"]}}
      rollout: {{monitor: 1s, timeout: 60s}}
    """
MAKE_ALL = """
    set -e
    mkdir -p /home/dom0/tools /home/dom0/box
    cd /home/dom0
    printf 'FROM dom0-rootfs\\nRUN dpkg --list apt >/installed\\n' >tools/Dockerfile
    docker build --quiet --network none --tag my-tools tools
    printf 'FROM dom0-base\\nRUN echo another >/etc/motd\\nCOPY compose.yaml /etc/dom0/\\n' >box/Dockerfile.dom0
    cat >box/compose.yaml
    dom0 up --wait box
    mkdir plain
    cp box/compose.yaml plain
    dom0 up --wait plain
    dom0 dev my-tools -- cat /installed
    """


def test_a_machine_without_a_network_makes_images_of_what_it_was_brought(
    machine: Machine, fresh_host: Callable[..., Host], tmp_path: Path
) -> None:
    """dom0 and an image to work in, on dom0-base and dom0-rootfs, typed in its own login."""
    file = tmp_path / "machine.tar"
    machine.write(LOGIN.format(dev="busybox:test"))
    machine.build()
    machine.dom0("image", "save", str(file))
    brought = Machine(fresh_host(), tmp_path)
    brought.docker("load", "--input", str(file))
    brought.run_by_hand()
    brought.until_good(1)
    compose = textwrap.dedent(LOGIN.format(dev="my-tools")).encode()
    typed = ["docker", "exec", "--interactive", "dom0-sshd", "sh", "-c", MAKE_ALL]
    said = brought.host.run(typed, stdin=compose, timeout=PATIENCE)
    for number in (2, 3):
        assert f"generation {number} is good" in said.stdout + said.stderr
    assert "ii  apt" in said.stdout
    layers = {name: brought.ask(f"/images/{name}/json")["RootFS"]["Layers"] for name in NAMES}
    assert layers["dom0-base"][0] == layers["my-tools"][0] == layers["dom0-rootfs"][0]
    assert layers["dom0:latest"][:3] == layers["dom0-base"]
