"""A virtual machine that starts from the network: waits in its loader, is approved, and is a node at its next start."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.farms import join, netboot, nodes, pin, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import NodeState
from dom0.farms.pin import Pin
from dom0.farms.settings import NetbootSettings
from dom0.osimage import qemu
from dom0.testing import tiny_os, vm
from dom0.testing.wires import eventually

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600), pytest.mark.usefixtures("virtual_machines")]
SAYS_TICKET = f'/bin/busybox echo "ticket=$(/bin/busybox cat /medium/dom0/ticket 2>/dev/null)."\n{tiny_os.WORKS}'
HOST = "10.0.2.2"  # how QEMU's network calls this machine


@pytest.fixture
def place() -> Iterator[Path]:
    with vm.scratch() as made:
        yield made


async def test_a_machine_waits_in_its_loader_until_it_is_approved_and_is_known_by_its_disk_from_then_on(
    farm: FarmDirectory, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_os = await asyncio.to_thread(tiny_os.make, place, "7", SAYS_TICKET)
    loaders, control = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    base = f"http://{HOST}:{loaders.getsockname()[1]}"
    server = Pin(HOST, control.getsockname()[1], pin.fingerprint(farm.server_pem))
    tree = await netboot.prepare(farm, NetbootSettings(interface="eth0", os=str(base_os.linux.file)), base)

    def boot(*, approve: bool) -> re.Match[str]:
        """What it says: its kernel line, and its ticket."""
        network = qemu.NetworkBoot(tree.top, "autoexec.ipxe")
        with vm.VirtualMachine(qemu.Bios(), network_boot=network, memory=512) as machine:
            if approve:
                (node,) = eventually(lambda: farm.nodes().nodes, patience=vm.PATIENCE)
                assert node.state is NodeState.WAITING
                assert "tiny" not in machine.console()
                farm.change(lambda before: nodes.approve(before, node.code, "nas", "web"))
            found = machine.wait_for(r"tiny 7: (.*)\r?\n(?:.*\n)*?.*ticket=([0-9a-f]*)\.")
            machine.wait()
            return found

    async with serve.serve(farm, control), netboot.serve(farm, tree, loaders, base, server):
        said = await asyncio.to_thread(boot, approve=True)
        assert {"dom0.medium=none", "dom0.hostname=nas", f"dom0.farm={server}"} <= set(said[1].split())
        assert farm.nodes().named("nas").state is NodeState.LOADING
        (place / "ticket").write_text(said[2])
        monkeypatch.setattr(join, "TICKET", place / "ticket")
        here = Pin("127.0.0.1", server.port, server.fingerprint)
        membership = join.prepare(place / "disk", here, leave=False)
        standing = await join.join(place / "disk", here, membership, print)
        assert (standing.name, standing.state) == ("nas", NodeState.ENROLLED)
        again = await asyncio.to_thread(boot, approve=False)
        assert ("dom0.hostname=nas" in again[1], again[2]) == (True, "")
    assert [node.name for node in farm.nodes().nodes] == ["nas"]
