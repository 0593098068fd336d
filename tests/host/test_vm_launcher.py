"""The launcher in whole machines: rescue where nothing can run, the last good image where dom0:latest is broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.osimage import qemu
from dom0.testing import data_disk, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]
BREAK = """
docker create --name broken --entrypoint /bin/false dom0:latest &&
docker commit --change 'HEALTHCHECK NONE' broken dom0:latest && docker rm broken && sync
"""
# Its start does not end without a network; its health check is dom0's own, which counts no failure for minutes.
WAIT_FOR_NETWORK = """
docker create --name waits --entrypoint /bin/sh dom0:latest -c 'until getent hosts example.org; do sleep 1; done' &&
docker commit waits dom0:latest && docker rm waits && sync
"""
# Starts for a minute, with work for the processor; its health check, which has no time for a start, has failed by then.
WORK_AT_START = """
docker create --name works --entrypoint /bin/sh dom0:latest -c '
    timeout 60 sh -c "while :; do :; done"; exec dom0 agent' &&
docker commit --change 'HEALTHCHECK --interval=5s --start-period=1s --retries=1 \
    CMD ["dom0", "agent", "--check"]' works dom0:latest &&
docker rm works && sync
"""


@pytest.fixture
def place(virtual_machines: None) -> Iterator[Path]:
    with vm.scratch() as directory:
        yield directory


@pytest.fixture
def key(place: Path) -> vm.Key:
    return vm.Key(place)


def test_a_machine_without_an_image_lets_a_person_in(key: vm.Key) -> None:
    with vm.VirtualMachine(vm.direct(key.setting), key=key) as machine:
        told = machine.ssh("cat /run/dom0/os/launcher", user="root").stdout
        assert told.splitlines()[0] == "runs=rescue"
        assert "why=there is no dom0 image" in told
        assert "dom0-rescue" in machine.ssh("docker ps --format '{{.Names}}'", user="root").stdout


def spoiled(by: str, key: vm.Key, place: Path) -> qemu.Drive:
    """The data disk of a machine that was good, whose dom0:latest then became another image, before a power cut."""
    disk = vm.overlay(place / "data", data_disk.provide(started=False))
    with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
        machine.wait_for_services()
        machine.wait_for(r"dom0 of image \w+ is good")
        machine.ssh(by)
        machine.cut_power()
    return disk


def test_a_broken_dom0_latest_is_left_for_the_last_good_one(key: vm.Key, place: Path) -> None:
    disk = spoiled(BREAK, key, place)
    with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
        machine.wait_for(r"dom0 of image \w+ ended")
        machine.wait_for(r"dom0 of image \w+ is good")
        machine.wait_for_services()
        assert "last-good" in machine.ssh("dom0 status").stdout
        assert machine.ssh("docker inspect --format '{{.State.Status}}' dom0-failed").stdout == "exited\n"


def test_an_image_that_is_unhealthy_while_it_works_at_its_start_has_time_for_it(key: vm.Key, place: Path) -> None:
    disk = spoiled(WORK_AT_START, key, place)
    with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
        machine.wait_for(r"dom0 of image \w+ is good")
        machine.wait_for_services()
        told = "docker events --since 0 --until $(date +%s) --filter container=dom0 --filter event=health_status"
        assert "health_status: unhealthy" in machine.ssh(told).stdout
        assert "last-good" not in machine.ssh("dom0 status").stdout
        assert "problem" not in machine.ssh("cat /run/dom0/boot.record").stdout


def test_without_a_network_an_image_that_waits_for_one_is_left_for_the_last_good_one(key: vm.Key, place: Path) -> None:
    disk = spoiled(WAIT_FOR_NETWORK, key, place)
    hasty = vm.direct("DOM0_HEALTHY_WITHIN=20")  # the kernel hands it on to the first process
    with vm.VirtualMachine(hasty, drives=[disk], network_card="") as machine:
        machine.wait_for(r"dom0 of image \w+ was not healthy within 20 s", patience=2 * vm.PATIENCE)
        machine.wait_for(r"dom0 of image \w+ is good")
        machine.type("")  # wakes the shell of the console
        machine.type("until dom0 exec redis redis-cli ping; do sleep 1; done; dom0 status")
        machine.wait_for("PONG")
        machine.wait_for("last-good")
