"""The base OS for arm64, made and started on a machine of any kind. Its dom0 would have to be made on one like it."""

from __future__ import annotations

import pytest

from dom0.osimage import build, qemu
from dom0.testing import vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]


def test_a_machine_with_another_processor_boots_to_its_engine_and_the_rescue_server(virtual_machines: None) -> None:
    files = vm.base_os(arch="arm64")
    with vm.scratch() as directory:
        key = vm.Key(directory)
        line = f"console=ttyAMA0 quiet loglevel=4 panic=-1 dom0.medium=none dom0.data=ram {key.setting}"
        boot = qemu.Direct(files / build.LINUX, files / build.INITRD, line)
        with vm.VirtualMachine(boot, architecture="arm64", key=key) as machine:
            machine.wait_for("dom0: there is no dom0 image")
            assert machine.ssh("uname -m", user="root").stdout == "aarch64\n"
            asked = machine.ssh(
                "docker version --format '{{.Server.Arch}}' && docker ps --format '{{.Names}}'", user="root"
            )
            assert asked.stdout.split() == ["arm64", "dom0-rescue"]


def test_the_flavour_for_boards_is_made_of_what_debian_has(virtual_machines: None) -> None:
    """Its drivers are there by the names in os/modules; no board was tried."""
    files = vm.base_os("metal", arch="arm64")
    assert (files / build.UKI).stat().st_size < 120_000_000
