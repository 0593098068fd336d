"""A full disk under dom0's state or under the Engine: it is said, what runs runs on, and room is all that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing import api, busybox, chain
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
STATE, DATA = "/var/lib/dom0", "/var/lib/docker"


@pytest.fixture(scope="module")
def box(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Its state directory is a small file system of its own."""
    with Host() as host:
        chain.provide(host)
        host.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", STATE])
        yield bring_up(host, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def small_engine(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The Engine's data root is a small file system of its own."""
    with Host() as host:
        host.kill_engine()
        give_own_disk(host, DATA)
        host.start_engine()
        api.import_image(host.socket, busybox.IMAGE, busybox.layer())
        chain.provide(host)
        yield bring_up(host, tmp_path_factory.mktemp("project"))


def give_own_disk(host: Host, path: str) -> None:
    """No tmpfs: the Engine's databases are mapped into memory, and a full one would end it with SIGBUS."""
    image = host.root / "disk.img"
    with image.open("wb") as file:
        file.truncate(900 << 20)
    host.run(["mkfs.ext4", "-q", "-m", "0", str(image)])
    host.run(["mount", "-o", "loop", str(image), path])


def bring_up(host: Host, project: Path) -> Machine:
    machine = Machine(host, project)
    write(machine, "first")
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture
def full(box: Machine) -> Iterator[Path]:
    yield from fill(box, STATE)


@pytest.fixture
def full_engine(small_engine: Machine) -> Iterator[Path]:
    yield from fill(small_engine, DATA)


def fill(machine: Machine, path: str) -> Iterator[Path]:
    filler = machine.host.path(f"{path}/filler")
    machine.host.run(["dd", "if=/dev/zero", f"of={path}/filler", "bs=4k"], check=False)
    yield filler
    filler.unlink(missing_ok=True)


def write(machine: Machine, version: str, files: dict[str, str] | None = None) -> None:
    machine.write(COMPOSE.format(version=version), files or {})


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
    said = box.up(check=False)
    assert_said(said)
    message = f"dom0: {STATE}: cannot be written: No space left on device"
    assert (said.code, said.stderr.splitlines()[-2]) == (1, message)
    assert box.lives(WEB) == before
    assert box.status()["generation"]["number"] == generation["number"]
    now = box.container("dom0")
    assert (now["Id"], now["RestartCount"]) == (agent["Id"], agent["RestartCount"])
    full.unlink()
    box.up()
    box.until_good()
    assert box.variable(WEB, "VERSION") == "second"


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


def test_a_change_is_refused_while_the_engine_has_no_room_and_works_once_there_is(
    small_engine: Machine, full_engine: Path
) -> None:
    before, generation = small_engine.lives(WEB, "dom0"), small_engine.status()["generation"]
    write(small_engine, "second", {"file": "x" * 100_000})
    assert_said(small_engine.up(check=False))
    assert small_engine.lives(WEB, "dom0") == before
    assert small_engine.status()["generation"]["number"] == generation["number"]
    full_engine.unlink()
    small_engine.up()
    small_engine.until_good()
    assert small_engine.variable(WEB, "VERSION") == "second"


def test_a_container_that_the_engine_has_no_room_for_is_a_problem_until_there_is(
    small_engine: Machine, full_engine: Path
) -> None:
    before = small_engine.container(WEB)["Id"]
    small_engine.docker("rm", "--force", WEB)
    small_engine.until(lambda: "disk-full" in {problem["code"] for problem in small_engine.status()["problems"]})
    full_engine.unlink()
    small_engine.until_running(WEB, not_id=before)
    small_engine.until(lambda: not small_engine.status()["problems"])
