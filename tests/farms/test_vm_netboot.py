"""A virtual machine that starts from the network: waits in its loader, is approved, is a node at its next start; what
panics it is given three times.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.farms import boots, join, netboot, nodes, pin, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import Firmware, MachineInfo, NodeState, key_of
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


MAC, UUID = "52:54:00:12:34:56", "00000000-0000-0000-0000-000000000000"  # QEMU's own


def enroll(farm: FarmDirectory) -> None:
    firmware = Firmware(mac=MAC, uuid=UUID)
    heard = (key_of("pass"), MachineInfo(), "127.0.0.1", time.time(), nodes.draw_code, firmware)
    waiting = farm.change(lambda before: nodes.hear(before, *heard))
    farm.change(lambda before: nodes.approve(before, waiting.code, "nas", "web"))
    farm.change(lambda before: nodes.load(before, waiting.key, key_of("ticket"), time.time()))
    farm.change(lambda before: nodes.enroll(before, key_of("ticket"), key_of("secret"), time.time()))


async def test_a_base_os_that_panics_is_given_three_times_and_then_the_last_good_one(
    farm: FarmDirectory, place: Path
) -> None:
    """The machine restarts by itself, and nobody counts but the server."""
    good = await asyncio.to_thread(tiny_os.make, place, "1.0")
    bad = await asyncio.to_thread(tiny_os.make, place, "2.0", tiny_os.PANICS)
    enroll(farm)

    def boot() -> str:
        """What it says until it switches itself off, which the good one does."""
        network = qemu.NetworkBoot(farm.state / "netboot", "autoexec.ipxe")
        with vm.VirtualMachine(qemu.Bios(), network_boot=network, memory=512, restarts=True) as machine:
            machine.wait()
            return machine.console()

    async def served(os: Path) -> str:
        loaders = socket.create_server(("127.0.0.1", 0))
        base = f"http://{HOST}:{loaders.getsockname()[1]}"
        tree = await netboot.prepare(farm, NetbootSettings(interface="eth0", os=str(os)), base)
        async with netboot.serve(farm, tree, loaders, base, Pin(HOST, 7701, "5f" * 32)):
            return await asyncio.to_thread(boot)

    assert re.findall(r"tiny (\S+):", await served(good.linux.file)) == ["1.0"]
    word = [("nas", "1.0", time.time() + 1)]
    farm.change_rollout(lambda before: (replace(before, boots=boots.hear(before.boots, word)), None))
    assert re.findall(r"tiny (\S+):", await served(bad.linux.file)) == ["2.0", "2.0", "2.0", "1.0"]
    assert farm.rollout().boots.has_failed("nas", "2.0")
