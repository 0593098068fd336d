"""A full disk under dom0's state or under the Engine: it is said, what runs runs on, and room is all that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing import chain
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
    """
WEB = "box-web-1"
FILLER = "/var/lib/dom0/filler"


@pytest.fixture(scope="module")
def box(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Its state directory is a small file system of its own."""
    with Host() as host:
        chain.provide(host)
        host.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/var/lib/dom0"])
        machine = Machine(host, tmp_path_factory.mktemp("project"))
        write(machine, "first")
        machine.up()
        machine.until_good()
        yield machine


@pytest.fixture
def full(box: Machine) -> Iterator[Path]:
    filler = box.host.path(FILLER)
    box.host.run(["dd", "if=/dev/zero", f"of={FILLER}", "bs=4k"], check=False)
    yield filler
    filler.unlink(missing_ok=True)


def write(machine: Machine, version: str, files: dict[str, str] | None = None) -> None:
    machine.write(COMPOSE.format(version=version), files or {})


def version(machine: Machine) -> str:
    found: list[str] = machine.container(WEB)["Config"]["Env"]
    return next(word.removeprefix("VERSION=") for word in found if word.startswith("VERSION="))


def assert_said(said: Output) -> None:
    assert said.code != 0, said
    assert "Traceback" not in said.stderr
    assert said.stderr.startswith("dom0: "), said
    assert "space" in said.stderr


def test_a_change_is_refused_while_the_state_directory_is_full_and_works_once_there_is_room(
    box: Machine, full: Path
) -> None:
    before, generation = box.lives(WEB), box.status()["generation"]
    agent = box.container("dom0")
    write(box, "second", {"file": "x" * 100_000})
    assert_said(box.up(check=False))
    assert box.lives(WEB) == before
    assert box.status()["generation"]["number"] == generation["number"]
    now = box.container("dom0")
    assert (now["Id"], now["RestartCount"]) == (agent["Id"], agent["RestartCount"])
    full.unlink()
    box.up()
    box.until_good()
    assert version(box) == "second"


def test_a_full_state_directory_does_not_keep_the_machine_from_being_put_right(box: Machine, full: Path) -> None:
    before = box.container(WEB)["Id"]
    box.docker("rm", "--force", WEB)
    box.until_running(WEB, not_id=before)


def test_an_agent_that_starts_on_a_full_disk_keeps_the_machine_as_it_was(box: Machine, full: Path) -> None:
    before = box.container(WEB)["Id"]
    box.docker("restart", "dom0")
    box.until(box.status)
    box.docker("rm", "--force", WEB)
    box.until_running(WEB, not_id=before)
