"""`engine` of the base OS: containerd is started once, and again when it is gone."""

from __future__ import annotations

import pytest

from dom0.testing.disk_machine import DiskMachine

ENGINE = "/usr/lib/dom0/engine"
CONTAINERD = "/usr/bin/containerd"
STARTS = "/run/starts"  # a line with the number of each
PID_FILE = "/run/containerd.pid"

FAKE = f"""#!/bin/sh
read -r number _ </proc/self/stat
echo $number >>{STARTS}
while :; do sleep 0.1; done
"""


@pytest.fixture
def started(machine: DiskMachine) -> DiskMachine:
    program = machine.inside(CONTAINERD)
    program.write_text(FAKE)
    program.chmod(0o755)
    machine.inside(STARTS).touch()
    return machine


def starts(machine: DiskMachine, number: int) -> list[str]:
    """All of them, once there are `number`."""
    file = machine.inside(STARTS)
    machine.until(lambda: len(file.read_text().split()) >= number)
    return file.read_text().split()


def test_containerd_is_known_by_its_number(started: DiskMachine) -> None:
    started.start(ENGINE, "containerd")
    assert starts(started, 1) == [started.inside(PID_FILE).read_text().strip()]


def test_init_starts_it_again_and_not_beside_the_one_of_the_boot(started: DiskMachine) -> None:
    started.start(ENGINE, "containerd")
    (first,) = starts(started, 1)
    started.start(ENGINE, "containerd")
    started.run("/usr/bin/kill", "-KILL", first)
    assert len(starts(started, 2)) == 2
    assert started.run("/usr/bin/pidof", "containerd").stdout.split() == [starts(started, 2)[1]]


def test_it_comes_back_while_a_container_has_a_containerd_of_its_own(started: DiskMachine) -> None:
    started.start("/usr/bin/unshare", "--pid", "--fork", CONTAINERD)
    starts(started, 1)
    started.start(ENGINE, "containerd")
    assert len(starts(started, 2)) == 2


def test_nothing_is_started_once_the_machine_goes_down(started: DiskMachine) -> None:
    started.start(ENGINE, "containerd")
    (first,) = starts(started, 1)
    init = started.start(ENGINE, "containerd")
    started.inside("/run/dom0/os/stopping").touch()
    started.run("/usr/bin/kill", "-KILL", first)
    assert init.wait(60) == 0
    assert starts(started, 1) == [first]
