"""A farm of virtual machines from the network's loader to redis in their role, and again
without its server.

BIOS and EFI, Debian's dnsmasq beside a router's DHCP server. The tests go on from each other.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dom0.farms.nodes import NodeState
from dom0.farms.revisions import RoleState
from dom0.testing import vm, vm_farm
from dom0.testing.vm_farm import NetbootFarm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(7200)]
FIRMWARE = {"nas": "bios", "pi": "efi"}
WITH_IMAGES = 2048  # MiB: what the network brings stays in memory
STORE = """
name: box
services:
  redis:
    image: redis:test
    command: [redis-server, --bind, "*", --protected-mode, "no", --dir, /data, --appendonly, "yes"]
    ports: ["6379:6379"]
    volumes: ["data:/data"]
    restart: unless-stopped
volumes: {data: }
x-dom0: {rollout: {monitor: 1s, timeout: 20m}}
"""
STARTED = r"dom0: \w+ has the address 10\.9\.6\.\d+"  # all that comes from the network is there


@pytest.fixture(scope="module")
def farm(virtual_machines: None) -> Iterator[NetbootFarm]:
    """It has a revision, and nobody serves it."""
    with vm.scratch() as directory, vm_farm.netboot_farm(directory) as made:
        made.write("store", STORE)
        made.configure()
        made.up()
        yield made


def connections(farm: NetbootFarm) -> str:
    """Of loaders to the server."""
    return farm.machine.host.run(["ss", "-Htn", "state", "established", "sport", "=", ":7700"]).stdout


@pytest.mark.parametrize("name", FIRMWARE)
def test_a_machine_waits_in_its_loader_is_approved_and_runs_its_role(name: str, farm: NetbootFarm) -> None:
    """Its disk is empty. The server ends while the loader asks it for the first time, and while it waits."""
    farm.serve()
    assert farm.server is not None
    farm.server.send_signal(signal.SIGSTOP)
    with farm.power(name, by=FIRMWARE[name], memory=WITH_IMAGES) as machine:
        farm.until(lambda: connections(farm))
        farm.kill()
        farm.serve()
        code = farm.until_shown(machine, r"dom0 farm approve ([0-9a-f]{6}) --as NAME")[1]
        farm.kill()
        farm.command("approve", code, "--as", name, "--role", "store")
        farm.serve()
        farm.until(lambda: farm.directory.nodes().named(name).state is NodeState.ENROLLED)
        farm.until_redis_answers(name)
        farm.until(lambda: farm.report(name).state is RoleState.GOOD)
        assert farm.ask_redis(name, f"SET word {name}") == "+OK"
        assert farm.ask_redis(name, "WAITAOF 1 0 0").split()[1] == ":1"  # it is on the disk
        told = farm.machine.dom0("farm", "exec", "--dir", str(farm.path), name, "--", "hostname").stdout
        assert told == f"{name}\n"
        assert f"dom0: {name}: a node of the farm attic, with the role store" in machine.screen()
    farm.kill()


def test_with_the_server_off_a_machine_runs_its_role_and_has_its_data(farm: NetbootFarm) -> None:
    farm.serve()
    with farm.power("nas", by="bios", memory=WITH_IMAGES) as machine:
        farm.until_shown(machine, STARTED)
        farm.kill()
        farm.until_redis_answers("nas")
        assert farm.ask_redis("nas", "GET word").split() == ["$3", "nas"]
        farm.until_shown(machine, r"dom0: the farm's server does not answer: \S")
