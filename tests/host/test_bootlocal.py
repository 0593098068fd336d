"""`bootlocal` of the base OS: the owner's program runs in every boot and cannot hold one up."""

from __future__ import annotations

import pytest

from dom0.testing.disk_machine import DiskMachine

SCRIPT = "/var/lib/dom0/bootlocal.sh"
PROGRAM = "exec /usr/lib/dom0/bootlocal {} >/dev/null 2>&1"  # nothing it leaves running keeps our pipes
PATIENCE = 60  # seconds, as in a boot


@pytest.fixture
def booted(machine: DiskMachine) -> DiskMachine:
    machine.run("/usr/bin/mkdir", "-p", "/var/lib/dom0")
    return machine


def run(machine: DiskMachine, script: str, *, patience: int = PATIENCE) -> list[str]:
    """What the boot's record has of it."""
    machine.inside(SCRIPT).write_text(script)
    machine.run("/usr/bin/sh", "-c", PROGRAM.format(patience))
    record = machine.inside("/run/dom0/boot.record")
    return [line.split("\t", 1)[1] for line in record.read_text().splitlines()] if record.exists() else []


def test_it_runs_by_sh_and_is_waited_for(booted: DiskMachine) -> None:
    assert run(booted, "sleep 0.3; cat; echo done >/run/said") == []
    assert booted.inside("/run/said").read_text() == "done\n"


def test_a_machine_without_one_boots(booted: DiskMachine) -> None:
    booted.run("/usr/bin/sh", "-c", PROGRAM.format(PATIENCE))
    assert not booted.inside("/run/dom0/boot.record").exists()


def test_its_failure_is_said_and_no_failure_of_the_boot(booted: DiskMachine) -> None:
    assert run(booted, "no-such-program") == [f"problem\t{SCRIPT} failed: exit code 127"]
    booted.console(until=f"dom0: {SCRIPT} failed: exit code 127")


def test_what_it_leaves_running_goes_on_and_holds_up_nothing(booted: DiskMachine) -> None:
    script = "(until [ -e /run/go ]; do echo beside; sleep 0.1; done; echo end >/run/said) &"
    assert run(booted, script) == []
    assert not booted.inside("/run/said").exists()
    booted.inside("/run/go").touch()
    booted.run("/usr/bin/sh", "-c", "until [ -e /run/said ]; do sleep 0.1; done")


def test_what_is_not_done_in_time_goes_on_beside_the_boot_and_may_still_fail(booted: DiskMachine) -> None:
    said = f"problem\t{SCRIPT} is not done after 1 s; the boot goes on beside it"
    assert run(booted, "until [ -e /run/go ]; do sleep 0.1; done; exit 3", patience=1) == [said]
    booted.inside("/run/go").touch()
    booted.console(until=f"dom0: {SCRIPT} failed: exit code 3")
