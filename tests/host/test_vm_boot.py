"""A whole machine from nothing but kernel and initramfs: it ends with a login in the dom0 of examples/mybox."""

from __future__ import annotations

import json

import pytest

from dom0.testing import data_disk, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
STAGES = ["kernel", "init", "disk", "network", "engine", "image", "dom0", "healthy"]


def test_a_machine_boots_to_dom0_and_its_services(virtual_machines: None) -> None:
    with vm.scratch() as directory:
        key = vm.Key(directory)
        disk = vm.overlay(directory / "data", data_disk.provide(started=False))
        with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
            machine.wait_for_services()
            assert machine.ssh("dom0 exec redis redis-cli ping").stdout.strip() == "PONG"
            boot = json.loads(machine.ssh("dom0 boot --json").stdout)
            assert [stage["name"] for stage in boot["stages"] if not stage["name"].startswith("service")] == STAGES
            assert "swap" not in machine.ssh("cat /proc/swaps").stdout
