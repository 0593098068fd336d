"""From an empty checkout to a running machine with one command, on a Debian that has git, make and Python only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.testing.fresh_machine import FreshMachine
from dom0.testing.hosts import Host

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def machine(chain_images: None, fresh_host: Callable[..., Host]) -> FreshMachine:
    packages = ("git", "make", "python3", "ca-certificates")
    machine = FreshMachine(fresh_host(outside=True), packages, workdir="/root/dom0")
    machine.unpack(checkout())
    return machine


def checkout() -> bytes:
    """A tar of the sources as they are, committed or not, below dom0/."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, check=True, capture_output=True,
    )  # fmt: skip
    names = [name for name in listed.stdout.split(b"\0") if name and (CHECKOUT / os.fsdecode(name)).exists()]
    packed = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", "--transform=s,^,dom0/,", "--owner=0", "--group=0"],
        cwd=CHECKOUT, check=True, capture_output=True, input=b"\0".join(names),
    )  # fmt: skip
    return packed.stdout


@pytest.mark.timeout(1500)
def test_make_up_brings_up_the_example_then_changes_nothing_and_make_down_keeps_the_volumes(
    machine: FreshMachine,
) -> None:
    first = machine.run("make", "up").stdout
    for step in ("Debian packages", "virtual environment", "Docker Engine", "dom0 up examples/mybox"):
        assert f" ok {step} (" in first
    assert "dom0 status" in first
    running = machine.containers()
    assert "dom0" in running
    assert len(running) > 1

    ids = machine.run("docker", "ps", "--all", "--quiet", "--no-trunc").stdout
    second = machine.run("make", "up").stdout
    assert "Debian packages" in second
    assert ": all there" in second
    assert ": unchanged" in second
    assert machine.run("docker", "ps", "--all", "--quiet", "--no-trunc").stdout == ids

    volumes = machine.run("docker", "volume", "ls", "--quiet").stdout
    assert volumes
    machine.run("make", "down")
    assert machine.containers() == set()
    assert machine.run("docker", "volume", "ls", "--quiet").stdout == volumes
    assert machine.run("make", "down").code == 0

    asked = machine.run("make", "clean", check=False)
    assert asked.code != 0
    for volume in volumes.split():
        assert volume in asked.stdout
    assert "nothing was deleted" in asked.stdout
