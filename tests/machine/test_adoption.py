"""A running Compose project is taken over, changed and given back: every byte is there, and nothing ever ran twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine

# A database in small: it refuses to run beside another one, and writes down when it had to.
DATABASE = "mkdir /data/lock || {{ echo two writers >> /data/broken; exit 1; }}; trap 'rmdir /data/lock; exit' TERM; "
DATABASE += "echo $$HOSTNAME >> /data/rows; while :; do sleep 0.1; done"
COMPOSE = f"""
    name: box
    x-dom0: {{{{rollout: {{{{monitor: 1s, timeout: 3m}}}}}}}}
    services:
      db:
        image: busybox:test
        command: ["sh", "-c", "{DATABASE}"]
        volumes: ["data:/data"]
        stop_grace_period: 30s
        restart: always
      files:
        image: busybox:test
        command: ["sh", "-c", "{DATABASE}"]
        volumes: ["./data:/data"]
        stop_grace_period: 30s
        restart: unless-stopped
        environment: {{{{VERSION: "{{version}}"}}}}
      web:
        image: busybox:test
        command: {{web}}
        init: true
    volumes: {{{{data: {{{{}}}}}}}}
    """
WEB = '["sleep", "100000"]'
ALL = ("box-db-1", "box-files-1", "box-web-1")


def write(machine: Machine, *, version: str = "1", web: str = WEB) -> None:
    machine.write(COMPOSE.format(version=version, web=web))


@pytest.fixture
def box(machine: Machine) -> Iterator[Machine]:
    write(machine)
    compose_up(machine)
    yield machine
    machine.dom0("down", check=False)
    machine.docker("compose", "-p", "box", "down", "--timeout", "30", check=False)
    machine.docker("volume", "rm", "--force", "box_data")
    machine.host.run(
        ["rm", "-rf", f"{machine.project}/data", "/var/lib/dom0/generations", "/var/lib/dom0/in-place.json"]
    )


def is_done(machine: Machine) -> bool:
    """On a machine that has much else to do a moment can have passed before it was looked for."""
    generation = machine.status()["generation"]
    return generation is not None and generation["outcome"] == "good"


def compose_up(machine: Machine) -> None:
    machine.docker("compose", "--project-directory", str(machine.project), "up", "--detach")


def rows(machine: Machine) -> tuple[list[str], list[str]]:
    """Who wrote to the volume and to the directory, one row a start. Nobody may have been there twice."""
    mounts = ("--volume", "box_data:/1:ro", "--volume", f"{machine.project}/data:/2:ro")
    found = []
    for place in ("/1", "/2"):
        command = f"cat {place}/rows {place}/broken || true"
        found.append(machine.docker("run", "--rm", *mounts, "busybox:test", "sh", "-c", command).stdout.split())
    return found[0], found[1]


def test_what_fits_goes_on_and_is_given_back(box: Machine) -> None:
    before = box.lives(*ALL)
    assert box.up(check=False).code == 3
    write(box, web='["sleep", "100001"]')
    planned = box.dom0("plan", "--adopt", check=False)
    assert planned.code == 10
    box.up("--adopt")
    box.until_good()
    assert box.lives("box-db-1", "box-files-1") == {name: before[name] for name in ("box-db-1", "box-files-1")}
    assert box.container("box-web-1")["Id"] != before["box-web-1"][0]
    assert box.containers().keys() == {*ALL, "dom0"}
    for name in ("box-db-1", "box-files-1"):
        assert f"adopt    container  {name}" in planned.stdout, planned.stdout
    write(box, version="2", web='["sleep", "100001"]')
    box.up()
    box.until_good()
    files = box.container("box-files-1")
    assert files["Id"] != before["box-files-1"][0]
    assert [mount["Source"] for mount in files["Mounts"]] == [f"{box.project}/data"]
    box.dom0("down")
    assert box.containers() == {}
    compose_up(box)
    box.until(lambda: [len(found) for found in rows(box)] == [2, 3])
    assert not any("two" in found for found in rows(box))


def test_its_data_stays_where_it_is_and_is_not_copied(box: Machine) -> None:
    box.up("--adopt")
    box.until_good()
    box.docker("exec", "box-files-1", "sh", "-c", "echo more > /data/more")
    assert box.up().stdout == "box: nothing to do, generation 2 is good\n"
    copies = box.docker("exec", "dom0", "find", "/etc/dom0/data", "/var/lib/dom0/project/data", "-type", "f")
    assert copies.stdout == ""
    write(box, web='["sleep", "100001"]')
    box.up()
    box.until_good()
    assert (box.project / "data/more").read_text() == "more\n"
    box.dom0("down")
    box.up()
    box.until_good()
    assert [mount["Source"] for mount in box.container("box-files-1")["Mounts"]] == [f"{box.project}/data"]


def test_what_a_service_writes_into_its_own_build_context_is_no_change(box: Machine) -> None:
    """Compose builds it of the whole directory, and Docker finds that nothing of the data is in the image."""
    (box.project / "Dockerfile").write_text("FROM busybox:test\nCOPY compose.yaml /\n")
    box.write(COMPOSE.format(version="1", web=WEB).replace("image: busybox:test", "build: .", 1))
    compose_up(box)
    try:
        box.up("--adopt")
        box.until_good()
        number = box.status()["generation"]["number"]
        box.docker("exec", "box-files-1", "sh", "-c", "echo more > /data/more")
        box.up()
        assert box.status()["generation"]["number"] == number
    finally:
        (box.project / "Dockerfile").unlink()


def test_a_copy_of_its_directory_is_not_taken_for_it(box: Machine, tmp_path: Path) -> None:
    box.up("--adopt")
    box.until_good()
    copy = tmp_path / "copy"
    box.host.run(["cp", "-a", str(box.project), str(copy)])
    for command in ("plan", "up"):
        refused = box.dom0(command, str(copy), check=False)
        assert (refused.code, f"its files are in {box.project} " in refused.stderr) == (3, True), refused.stderr
        assert "dom0-built" not in box.docker("image", "ls").stdout
    box.until_good()


def test_commands_know_what_was_taken_over(box: Machine) -> None:
    started = box.container("box-db-1")["State"]["StartedAt"]
    box.up("--adopt")
    box.until_good()
    assert box.dom0("exec", "db", "cat", "/etc/hostname").stdout.strip() in rows(box)[0]
    tree = box.dom0("tree").stdout
    assert all(f"── {name}  busybox:test" in tree for name in ALL), tree
    box.dom0("restart", "db")
    assert box.container("box-db-1")["State"]["StartedAt"] != started
    box.dom0("stop", "web")
    box.until(lambda: [problem["code"] for problem in box.status()["problems"]] == ["held"])
    box.dom0("start", "web")
    box.until_good()


def test_an_adoption_that_fails_leaves_the_project_as_it_was(box: Machine) -> None:
    before = {name: box.container(name)["Id"] for name in ALL}
    write(box, version="2", web='["false"]')
    assert box.up("--adopt", check=False).code == 5
    box.until(lambda: box.status()["generation"] is None)
    assert {name: box.container(name)["Id"] for name in ALL} == before
    assert {box.container(name)["State"]["Status"] for name in ALL} == {"running"}
    assert box.container("box-db-1")["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert box.containers().keys() == {*ALL, "dom0"}
    assert not any("two" in found for found in rows(box))


def test_an_agent_that_is_killed_meanwhile_finishes_it(box: Machine) -> None:
    before = {name: box.container(name)["Id"] for name in ALL}
    write(box, version="2", web='["sleep", "100001"]')
    child = box.begin("up", "--adopt", str(box.project))
    box.until(lambda: any(name.endswith("_box-files-1") for name in box.containers()) or is_done(box))
    box.docker("kill", "--signal", str(signal.SIGKILL.value), "dom0")
    child.wait(PATIENCE)
    box.docker("start", "dom0")
    box.until_good()
    assert box.container("box-db-1")["Id"] == before["box-db-1"]
    assert box.containers().keys() == {*ALL, "dom0"}
    assert not any("two" in found for found in rows(box))
