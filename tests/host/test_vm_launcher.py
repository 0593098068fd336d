"""The launcher in whole machines: rescue where nothing can run, the last good image where dom0:latest is broken."""

from __future__ import annotations

import pytest

from dom0.testing import data_disk, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]
BREAK = """
docker create --name broken --entrypoint /bin/false dom0:latest &&
docker commit --change 'HEALTHCHECK NONE' broken dom0:latest && docker rm broken && sync
"""


def test_a_machine_without_an_image_lets_a_person_in(virtual_machines: None) -> None:
    with vm.scratch() as directory:
        key = vm.Key(directory)
        with vm.VirtualMachine(vm.direct(key.setting), key=key) as machine:
            told = machine.ssh("cat /run/dom0/os/launcher", user="root").stdout
            assert told.splitlines()[0] == "runs=rescue"
            assert "why=there is no dom0 image" in told
            assert "dom0-rescue" in machine.ssh("docker ps --format '{{.Names}}'", user="root").stdout


def test_a_broken_dom0_latest_is_left_for_the_last_good_one(virtual_machines: None) -> None:
    with vm.scratch() as directory:
        key = vm.Key(directory)
        disk = vm.overlay(directory / "data", data_disk.provide(started=False))
        with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
            machine.wait_for_services()
            machine.wait_for(r"dom0 of image \w+ is good")
            machine.ssh(BREAK)
            machine.cut_power()
        with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
            machine.wait_for(r"dom0 of image \w+ ended")
            machine.wait_for(r"dom0 of image \w+ is good")
            machine.wait_for_services()
            assert "last-good" in machine.ssh("dom0 status").stdout
            assert machine.ssh("docker inspect --format '{{.State.Status}}' dom0-failed").stdout == "exited\n"
