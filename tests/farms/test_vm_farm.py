"""A farm of virtual machines from the network's loader to redis in their role, and again: without its server, without a
disk, with little memory and disks that are none of theirs, and with another base OS.

BIOS and EFI, Debian's dnsmasq beside a router's DHCP server. The tests go on from each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from dom0.farms import loader
from dom0.farms.nodes import NodeState
from dom0.farms.revisions import RoleState
from dom0.host import uki
from dom0.names import OS_VERSION
from dom0.osimage import build, qemu
from dom0.testing import data_disk, vm, vm_farm
from dom0.testing.fake_uki import make_uki
from dom0.testing.vm_farm import NetbootFarm

BOOTS = int(os.environ.get("DOM0_TEST_NETBOOTS", "2"))
pytestmark = [pytest.mark.vm, pytest.mark.timeout(5400 + 600 * BOOTS)]
FIRMWARE = {"nas": "bios", "pi": "efi"}
LEAST = 512  # MiB, with dom0 and a role
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
ANOTHER = "2.0"  # version of a base OS
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


def test_without_a_disk_a_machine_says_what_it_waits_for_and_is_approved_anew(farm: NetbootFarm) -> None:
    """What it was is gone with the power. The server is off when it comes up again."""
    farm.serve()
    with farm.power("lamp", by="bios", memory=WITH_IMAGES, drives=[]) as machine:
        code = farm.until_shown(machine, r"dom0 farm approve ([0-9a-f]{6}) --as NAME")[1]
        farm.command("approve", code, "--as", "lamp", "--role", "store")
        farm.until_redis_answers("lamp")
        assert farm.ask_redis("lamp", "SET word lamp") == "+OK"
    with farm.power("lamp", by="bios", memory=WITH_IMAGES, drives=[]) as machine:
        farm.until_shown(machine, STARTED)
        farm.kill()
        farm.until_shown(machine, r"dom0: the farm's server does not answer: .+; asked again until it does")
        farm.serve()
        code = farm.until_shown(machine, r"dom0: code ([0-9a-f]{6}): on the server of the farm attic, dom0 farm")[1]
        farm.command("remove", "lamp")
        farm.command("approve", code, "--as", "lamp", "--role", "store")
        farm.until_redis_answers("lamp")
        assert farm.ask_redis("lamp", "GET word") == "$-1"
    farm.command("remove", "lamp")
    farm.kill()


def test_boots_write_nothing_outside_the_data_disk(farm: NetbootFarm) -> None:
    """With little memory, and with the disk of another Linux and an empty one beside its own."""
    tree = farm.image.parent / "other"
    (tree / "var/lib/docker/containers").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12"\n')
    data_disk.write(tree.with_suffix(".ext4"), tree, label="root", size="256M")
    vm.blank(tree.with_suffix(".blank"), 1 << 30)
    others = [vm.overlay(tree.with_suffix(f".over{kind}"), tree.with_suffix(kind)) for kind in (".ext4", ".blank")]
    farm.configure(image=False)
    farm.serve()
    for number in range(BOOTS):
        by = ("bios", "efi")[number % 2]
        with farm.power("nas", by=by, memory=LEAST, drives=[*others, farm.disks["nas"]]) as machine:
            farm.until_shown(machine, STARTED)
            farm.until_redis_answers("nas")
            assert farm.ask_redis("nas", "GET word").split() == ["$3", "nas"]
            farm.until(lambda: "nas" not in farm.directory.rollout().boots.tried)  # it has said that it runs
    farm.kill()
    for other in others:
        assert is_untouched(other), other.file


def is_untouched(disk: qemu.Drive) -> bool:
    """Nothing was ever written to it, not even what was there before."""
    argv = ["qemu-img", "map", "--output=json", str(disk.file)]
    told = subprocess.run(argv, check=True, capture_output=True).stdout
    return all(extent["depth"] > 0 for extent in json.loads(told))


def test_two_machines_come_to_another_base_os_and_never_both_restart(farm: NetbootFarm) -> None:
    farm.configure(image=False, os=another_base_os(farm.image.with_name("another.efi"), ANOTHER))
    farm.serve()
    holders = set[tuple[str, ...]]()

    def has_come(name: str) -> bool:
        """In its turn and well, while one of them at least answers."""
        locks = tuple(lock.id for lock in farm.directory.rollout().locks)
        holders.add(locks)
        assert any(farm.redis_answers(each) for each in FIRMWARE)
        return farm.report(name).os == ANOTHER and name not in locks

    with ExitStack() as stack:
        for name, by in FIRMWARE.items():
            stack.enter_context(farm.power(name, by=by, memory=LEAST))
        for name in FIRMWARE:
            farm.until_redis_answers(name)
        farm.up()
        for name in FIRMWARE:
            farm.until(partial(has_come, name))
            farm.until_redis_answers(name)
            assert farm.ask_redis(name, "GET word").split()[1] == name
            argv = ["--dir", str(farm.path), name, "--", "cat", f"/proc/1/root{OS_VERSION}"]
            assert farm.machine.dom0("farm", "exec", *argv).stdout == f"{ANOTHER}\n"
    farm.kill()
    assert holders == {(), ("nas",), ("pi",)}


def another_base_os(file: Path, version: str) -> Path:
    """The same but for the version that it says."""
    base_os = vm.base_os()
    initrd = (base_os / build.INITRD).read_bytes()
    initrd += loader.archive({f"tree{OS_VERSION}": f"{version}\n".encode()})  # unpacked over what is there
    line = uki.read(base_os / build.UKI).line.encode()
    linux = (base_os / build.LINUX).read_bytes()
    file.write_bytes(make_uki(version=version, linux=linux, initrd=initrd, cmdline=line))
    return file
