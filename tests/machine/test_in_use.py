"""A Compose project that runs already, and other containers on its volumes: never two writers, and nothing lost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from dom0.run import CommandFailed
from dom0.testing.machines import Machine

# A database in small: it refuses to run beside another one, and writes down when it had to.
DATABASE = "mkdir /data/lock || { echo two writers >> /data/broken; exit 1; }; trap 'rmdir /data/lock; exit' TERM; "
DATABASE += "while sleep 0.1; do echo $$HOSTNAME >> /data/rows; done"
COMPOSE = f"""
    name: box
    x-dom0: {{rollout: {{monitor: 1s}}}}
    services:
      db:
        image: busybox:test
        command: ["sh", "-c", "{DATABASE}"]
        volumes: ["data:/data"]
        stop_grace_period: 30s
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
    volumes: {{data: {{}}}}
    """


@pytest.fixture
def box(machine: Machine) -> Iterator[Machine]:
    machine.write(COMPOSE)
    yield machine
    machine.docker("compose", "-p", "box", "down", "--timeout", "30", check=False)
    machine.dom0("down", check=False)
    machine.docker("rm", "--force", "other", check=False)
    machine.docker("volume", "rm", "--force", "box_data")


def compose_up(machine: Machine) -> None:
    machine.docker("compose", "--project-directory", str(machine.project), "up", "--detach")


def broken(machine: Machine) -> str:
    """What the databases wrote about each other."""
    run = ("run", "--rm", "--volume", "box_data:/data:ro", "busybox:test")
    return machine.docker(*run, "sh", "-c", "cat /data/broken 2>/dev/null || true").stdout


def test_a_running_compose_project_is_neither_touched_nor_joined(box: Machine) -> None:
    compose_up(box)
    before = box.lives("box-db-1", "box-web-1")
    for command in ("plan", "up"):
        said = box.dom0(command, check=False)
        assert said.code == 3
        assert "box-db-1" in said.stderr
        assert "docker compose -p box down" in said.stderr
        assert command == "plan" or said.stdout == ""  # else it would have been built first
    assert box.lives("box-db-1", "box-web-1") == before
    assert box.containers().keys() == {"box-db-1", "box-web-1"}
    box.docker("compose", "-p", "box", "down", "--timeout", "30")
    box.up()
    box.until_good()
    assert broken(box) == ""


def test_a_container_that_writes_to_the_volume_stops_up_before_it_begins(box: Machine) -> None:
    command = textwrap.dedent(DATABASE).replace("$$", "$")
    run = ("run", "--detach", "--name", "other", "--volume", "box_data:/data", "busybox:test")
    box.docker(*run, "sh", "-c", command)
    with pytest.raises(CommandFailed, match="box_data is written by other"):
        box.up()
    assert box.containers() == {"other": "running"}
    box.docker("stop", "other")
    box.up()
    box.until_good()
    other = box.docker("start", "other", check=False)
    assert other.code == 0  # nobody can forbid it: it finds the lock, and ours is not started beside it
    box.until(lambda: "two writers" in broken(box))
