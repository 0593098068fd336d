"""What only looks like a part of the machine is left alone, by the loop, by `up` and by `down`."""

from __future__ import annotations

import signal

import pytest

from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{ssh: {{port: 2233}}, home: {{}}, rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      a:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
    """
PERSONS = ("mydebug", "mysshd", "typed")
IMITATED = "box_imitated"  # a network and a volume


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(COMPOSE.format(version="1"))
    machine.up()
    machine.until_good()
    for name, committed in (("mydebug", "box-a-1"), ("mysshd", "dom0-sshd")):
        machine.docker("commit", committed, f"{name}:1")
        machine.docker("run", "--detach", "--name", name, "--entrypoint", "sleep", f"{name}:1", "100000")
    typed = [f"--label=dom0.{key}={value}" for key, value in {"project": "box", "role": "service"}.items()]
    machine.docker("run", "--detach", "--init", "--name", "typed", *typed, "busybox:test", "sleep", "100000")
    for kind in ("network", "volume"):
        machine.docker(kind, "create", "--label", "dom0.project=box", "--label", "dom0.hash=x", IMITATED)
    return machine


def test_containers_of_committed_images_outlive_every_change(box: Machine) -> None:
    before, number = box.lives(*PERSONS), box.until_good()["generation"]["number"]
    ours = box.container("box-a-1")["Id"]
    box.docker("rm", "--force", "box-a-1")
    box.until_running("box-a-1", not_id=ours)
    box.write(COMPOSE.format(version="2"))
    box.up()
    box.until_good(number + 1)
    assert box.lives(*PERSONS) == before
    assert IMITATED in box.docker("network", "ls").stdout


def test_they_outlive_an_agent_that_has_lost_what_it_knew(box: Machine) -> None:
    before, ours = box.lives(*PERSONS), box.lives("box-a-1", "dom0-sshd")
    number = box.until_good()["generation"]["number"]
    for name in ("memory.json", "ownership.json"):
        box.host.path(f"/var/lib/dom0/{name}").write_text("damaged")
    box.host.run(["docker", "kill", "--signal", str(signal.SIGKILL.value), "dom0"])
    box.docker("start", "dom0")
    box.until_good(number)
    box.write(COMPOSE.format(version="3"))
    box.up()
    box.until_good(number + 1)
    assert box.lives("mydebug", "mysshd") == {name: before[name] for name in ("mydebug", "mysshd")}
    assert box.container("box-a-1")["Id"] != ours["box-a-1"][0]
    assert box.lives("dom0-sshd") == {"dom0-sshd": ours["dom0-sshd"]}


def test_down_takes_only_what_dom0_made(box: Machine) -> None:
    before = box.lives("mydebug", "mysshd")
    box.dom0("down")
    assert box.lives("mydebug", "mysshd") == before
    assert "box-a-1" not in box.containers()
    assert IMITATED in box.docker("volume", "ls").stdout
