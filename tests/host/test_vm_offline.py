"""A machine of the base OS that has no network makes more images of those that it was brought."""

from __future__ import annotations

import pytest

from dom0.osimage import qemu
from dom0.testing import data_disk, more_images, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


def test_without_a_network_the_base_os_makes_another_dom0_and_an_image_to_work_in(virtual_machines: None) -> None:
    """In the login of its dom0, which has a shell and docker; from the console, because nobody else gets there.

    Without a Dockerfile: for each of its steps the Engine reads all of dom0-base, which takes minutes without KVM.
    """
    project = more_images.compose(data_disk.EXAMPLE, port=vm.SSH_PORT, timeout=600)
    with vm.scratch() as directory:
        stick = directory / "stick"
        stick.write_text(more_images.script(project, by_dockerfile=False).ljust(64 << 10, "\n"))
        drives = [vm.overlay(directory / "data", data_disk.provide(started=False)), qemu.Drive(stick, read_only=True)]
        with vm.VirtualMachine(vm.direct(), drives=drives, network_card="") as machine:
            machine.wait_for(r"dom0 of image \w+ is good")
            machine.type("")  # wakes the shell of the console
            machine.type("until dom0 exec redis redis-cli ping </dev/null; do sleep 1; done; echo answers: $?")
            machine.wait_for(r"answers: \d")  # not its PONG: what is typed before the command ends is lost
            machine.type('docker exec dom0-sshd sh -c "$(cat /dev/vdb)"; echo ended: $?')
            machine.wait_for(r"ended: \d", patience=3 * vm.PATIENCE)
            more_images.check(machine.console(), generation=2)
