"""`rc` of the base OS: what a boot starts, and that a power-off leaves nothing half done."""

from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest

from dom0.testing import file_systems
from dom0.testing.disk_machine import DiskMachine
from dom0.testing.namespaces import Child

HERE = "/usr/lib/dom0"
SOCKET = "/run/docker/containerd/containerd.sock"
STEPS = ("readahead", "mark", "drivers", "contract", "disk", "prepared", "record", "engine", "network", "bootlocal")

# Writes to the data disk, as long as it lives.
CONTAINERD = """#!/bin/sh
exec 3>/var/lib/docker/open
exec sleep 100000
"""
# Its containers stop when the test says so.
DOCKERD = """#!/bin/sh
trap 'until [ -e /run/stopped ]; do sleep 0.05; done; rm /run/docker.pid; exit' TERM
echo $$ >/run/docker.pid
while :; do sleep 0.05; done
"""


def install(machine: DiskMachine, path: str, text: str) -> None:
    machine.inside(path).write_text(text)
    machine.inside(path).chmod(0o755)


@pytest.fixture
def running(machine: DiskMachine) -> DiskMachine:
    """Its data on a disk, and both programs of the Engine as init runs them."""
    file = machine.root / "sda.disk"
    file_systems.make(file, "ext4", label="dom0-data", mib=64)
    machine.plug("sda", file)
    machine.disk("mount")
    install(machine, "/usr/bin/containerd", CONTAINERD)
    install(machine, "/usr/sbin/dockerd", DOCKERD)
    machine.inside(SOCKET).parent.mkdir(parents=True)
    os.mknod(machine.inside(SOCKET), stat.S_IFSOCK | 0o600)
    machine.start(f"{HERE}/engine", "containerd")  # of the boot
    machine.until(machine.inside("/var/lib/docker/open").exists)
    machine.start(f"{HERE}/engine", "containerd")
    machine.start(f"{HERE}/engine", "dockerd")
    machine.until(lambda: machine.inside("/run/docker.pid").read_text())
    return machine


def stop(machine: DiskMachine, *, patience: int = 30) -> Child:
    return machine.start(f"DOM0_PATIENCE={patience}", f"{HERE}/rc", "stop")


def is_clean(machine: DiskMachine) -> bool:
    """Nothing in the journal of the data disk is still to be done."""
    machine.flush()
    argv = ["/usr/sbin/dumpe2fs", "-h", str(machine.root / "sda.disk")]
    told = subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return "needs_recovery" not in told.stdout


@pytest.mark.parametrize(
    ("stop_times", "seconds"), [((None,), 10), ((None, 120, 20), 130), ((20, -1), 610), ((1200, -1), 1210)]
)
def test_an_engine_may_take_as_long_as_its_containers_were_given(
    running: DiskMachine, stop_times: tuple[int | None, ...], seconds: int
) -> None:
    for number, stop_time in enumerate(stop_times):
        file = running.inside(f"/var/lib/docker/containers/{number}/config.v2.json")
        file.parent.mkdir(parents=True)
        settings = {"Env": ['A="StopTimeout":7'], "Image": "a"} | ({"StopTimeout": stop_time} if stop_time else {})
        file.write_text(json.dumps({"Config": settings, "Name": "/a"}, separators=(",", ":")))  # as the Engine does
    going = stop(running, patience=1)
    running.console(until=f"dom0: waiting up to {seconds} s for containers to stop")
    assert going.poll() is None
    running.inside("/run/stopped").touch()
    assert going.wait(60) == 0
    assert is_clean(running)


def test_a_power_off_leaves_the_data_disk_unmounted_and_nothing_of_the_engine(running: DiskMachine) -> None:
    running.inside("/run/stopped").touch()
    assert not is_clean(running)
    assert stop(running).wait(60) == 0
    assert is_clean(running)
    assert "waiting" not in running.console()


def test_dom0_is_left_to_the_launcher_of_the_next_boot_before_the_engine_ends(running: DiskMachine) -> None:
    assert asked_of_engine(running, root="0123") == ["update --restart no 0123"]


def test_a_container_of_that_name_that_is_none_of_dom0_is_left_alone(running: DiskMachine) -> None:
    assert asked_of_engine(running, root="") == []


def asked_of_engine(machine: DiskMachine, root: str) -> list[str]:
    """What a power-off asks of an Engine that still runs, besides which root container of the name dom0 it has."""
    asked = machine.inside("/run/asked")
    asked.touch()
    install(
        machine,
        "/usr/bin/docker",
        "#!/bin/sh\n[ -e /run/docker.pid ] || exit 1\ncase $* in\n"
        f"'ps --quiet --filter name=^dom0$ --filter label=dom0.role=root') echo {root} ;;\n"
        "*) echo $* >>/run/asked ;;\nesac\n",
    )
    machine.inside("/run/stopped").touch()
    assert stop(machine).wait(60) == 0
    return asked.read_text().splitlines()


@pytest.fixture
def booting(machine: DiskMachine) -> DiskMachine:
    """Its programs only write down that they were called, and with which word."""
    for name in STEPS:
        install(machine, f"{HERE}/{name}", f"#!/bin/sh\necho {name} ${{1-}} >>/run/steps\n")
    machine.inside("/usr/bin/syslogd").unlink()
    machine.inside("/usr/bin/syslogd").symlink_to("true")
    machine.inside("/var/lib/dom0").mkdir(parents=True)
    machine.inside("/sys/fs/cgroup").mkdir(parents=True)
    return machine


def steps(machine: DiskMachine) -> list[str]:
    """Of a boot, and of what it leaves beside it."""
    machine.run(f"{HERE}/rc", "boot")
    return machine.inside("/run/steps").read_text().splitlines()


def test_programs_find_their_own_files_where_they_expect_them(booting: DiskMachine) -> None:
    steps(booting)
    assert booting.run("/bin/sh", "-c", "echo word | cat /dev/stdin").stdout == "word\n"


def test_containerd_starts_early_where_it_has_a_store(booting: DiskMachine) -> None:
    booting.inside("/var/lib/docker/containerd/daemon").mkdir(parents=True)
    assert "engine containerd" in steps(booting)


def test_an_empty_store_is_filled_last_before_the_engine(booting: DiskMachine) -> None:
    found = steps(booting)
    assert "engine containerd" not in found
    for earlier in ("contract keys", "network prepare", "bootlocal"):
        assert found.index(earlier) < found.index("prepared"), earlier


def test_with_a_program_of_the_owner_containerd_starts_after_it(booting: DiskMachine) -> None:
    booting.inside("/var/lib/docker/containerd/daemon").mkdir(parents=True)
    booting.inside("/var/lib/dom0/bootlocal.sh").touch()
    found = steps(booting)
    assert "bootlocal" in found
    assert "engine containerd" not in found


def test_images_that_are_not_unpacked_in_time_leave_their_space_to_the_engine(booting: DiskMachine) -> None:
    install(
        booting, f"{HERE}/prepared", "#!/bin/sh\nmkdir -p /var/lib/docker/.prepared; : >/run/unpacks; sleep 100000\n"
    )
    fresh = booting.inside("/var/lib/docker/.prepared")
    booting.start("DOM0_UNPACKING=5", f"{HERE}/rc", "boot")
    booting.until(booting.inside("/run/unpacks").exists)
    booting.until(lambda: not fresh.exists())


def test_a_machine_without_memory_for_all_that_it_was_started_with_says_so(booting: DiskMachine) -> None:
    lost = "there is too little memory for what this machine was started with: files of it are missing"
    booting.inside("/usr/bin/dmesg").unlink()
    for words in ("Freeing initrd memory: 76096K", "Initramfs unpacking failed: write error"):
        assert "mark problem" not in steps(booting)
        assert lost not in booting.console()
        install(booting, "/usr/bin/dmesg", f"#!/bin/sh\necho '[    4.167430] {words}'\n")
    assert "mark problem" in steps(booting)
    assert f"dom0: {lost}" in booting.console()
