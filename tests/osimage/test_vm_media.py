"""Whole machines from every kind of boot medium: each ends with a login in the dom0 of examples/mybox. And updates."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.host import uki
from dom0.host.uki import BootFile
from dom0.osimage import boot_contract, build, disk_image, grub_environment, media, medium, qemu
from dom0.osimage.boot_contract import BootContract
from dom0.testing import data_disk, tiny_os, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]
UNREAD = 53  # in an initrd: of the time of its first file, which nobody looks at


@pytest.fixture
def place(virtual_machines: None) -> Iterator[Path]:
    with vm.scratch() as directory:
        yield directory


@pytest.fixture
def key(place: Path) -> vm.Key:
    return vm.Key(place)


@pytest.fixture
def contract(key: vm.Key) -> BootContract:
    keys = boot_contract.authorized_keys([key.file.with_suffix(".pub")])
    return BootContract(boot_contract.config(["hostname=attic"]), keys)


@pytest.fixture
def data(place: Path) -> qemu.Drive:
    return vm.overlay(place / "data", data_disk.provide(started=False))


@pytest.fixture
def served(place: Path) -> Iterator[tuple[Path, str]]:
    """A directory, and where virtual machines reach it by HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
            pass

    directory = place / "served"
    directory.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield directory, f"http://10.0.2.2:{server.server_port}"
        server.shutdown()
        thread.join()


def base_os(flavour: str = "vm") -> uki.Uki:
    return uki.read(vm.base_os(flavour) / build.UKI)


def firmware(kind: str, place: Path) -> qemu.Bios | qemu.Uefi:
    if kind == "bios":
        return qemu.Bios()
    return qemu.Uefi(Path(shutil.copyfile(qemu.UEFI_VARIABLES, place / "variables")))


def write_disk(contract: BootContract, file: Path, flavour: str = "vm", *, size: int = 0) -> qemu.Drive:
    os = base_os(flavour)
    files = asyncio.run(media.disk_files(os, contract))
    asyncio.run(media.write_disk(os, files, file, size or disk_image.least_size(files)))
    return qemu.Drive(file)


def dom0_os(command: str, target: Path, *options: str | Path) -> None:
    """As a person would type it."""
    argv = [sys.executable, "-m", "dom0", "os", command, str(target), "--os", str(vm.base_os()), *map(str, options)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def is_mybox_named_attic(machine: vm.VirtualMachine) -> None:
    machine.wait_for_services()
    assert machine.ssh("dom0 exec redis redis-cli ping").stdout.strip() == "PONG"
    assert "attic" in machine.ssh("docker info --format '{{.Name}}'").stdout


@pytest.mark.parametrize("kind", ["bios", "uefi"])
def test_a_disk_starts_a_machine(kind: str, contract: BootContract, data: qemu.Drive, key: vm.Key, place: Path) -> None:
    drive = write_disk(contract, place / "boot.img")
    with vm.VirtualMachine(firmware(kind, place), drives=[drive, data], key=key) as machine:
        is_mybox_named_attic(machine)


def test_a_machine_with_an_address_of_its_own_asks_nobody_for_one(
    contract: BootContract, data: qemu.Drive, key: vm.Key, place: Path
) -> None:
    """The address is the one that QEMU leads connections to; one of the name servers only we know."""
    config = contract.config + b"ip=10.0.2.15/24,10.0.2.2,10.0.2.3,192.0.2.53\n"
    drive = write_disk(replace(contract, config=config), place / "boot.img")
    with vm.VirtualMachine(qemu.Bios(), drives=[drive, data], key=key) as machine:
        is_mybox_named_attic(machine)
        servers = machine.ssh("docker exec dom0 cat /etc/resolv.conf").stdout
        assert {"nameserver 10.0.2.3", "nameserver 192.0.2.53"} <= set(servers.splitlines())
        assert "udhcpc" not in machine.ssh("docker exec dom0 sh -c 'cat /proc/[0-9]*/comm 2>/dev/null || :'").stdout
        routes = [line.split() for line in machine.ssh("docker exec dom0 cat /proc/net/route").stdout.splitlines()]
        assert [(route[0], route[2]) for route in routes if route[1] == "00000000"] == [("eth0", "0202000A")]


@pytest.mark.parametrize(
    ("kind", "stick", "disk", "network_card"),
    [("uefi", "usb-storage", "ide-hd,bus=ide.0", "e1000e"), ("bios", "sd-card", "nvme,serial=1", "igb")],
)
def test_hardware_that_one_can_touch_starts_from_a_usb_stick_or_an_sd_card(
    kind: str,
    stick: str,
    disk: str,
    network_card: str,
    contract: BootContract,
    data: qemu.Drive,
    key: vm.Key,
    place: Path,
) -> None:
    """The flavour `metal`, with nothing of what only virtual machines have."""
    written = write_disk(contract, place / "boot.img", "metal", size=512 << 20)  # what QEMU takes for a card
    with vm.VirtualMachine(
        firmware(kind, place),
        drives=[replace(written, device=stick), replace(data, device=disk)],
        controllers=["qemu-xhci", "sdhci-pci"],
        network_card=network_card,
        key=key,
    ) as machine:
        is_mybox_named_attic(machine)


@pytest.mark.parametrize("kind", ["bios", "uefi"])
@pytest.mark.parametrize("how", ["cd", "stick"])
def test_an_iso_starts_a_machine(how: str, kind: str, data: qemu.Drive, key: vm.Key, place: Path) -> None:
    iso = place / "dom0.iso"
    dom0_os("iso", iso, "--config", "hostname=attic", "--ssh-key", key.file.with_suffix(".pub"))
    drives = [data] if how == "cd" else [qemu.Drive(iso, read_only=True), data]
    cd = iso if how == "cd" else None
    with vm.VirtualMachine(firmware(kind, place), drives=drives, cd=cd, key=key) as machine:
        is_mybox_named_attic(machine)


def test_an_iso_that_does_not_read_as_it_was_written_says_so(data: qemu.Drive, key: vm.Key, place: Path) -> None:
    iso = place / "dom0.iso"
    dom0_os("iso", iso, "--ssh-key", key.file.with_suffix(".pub"))
    content = bytearray(iso.read_bytes())
    content[content.index(next(base_os().initrd.chunks())[:110]) + UNREAD] ^= 1
    iso.write_bytes(content)
    with vm.VirtualMachine(qemu.Bios(), drives=[data], cd=iso, key=key) as machine:
        machine.wait_for_services()
        machine.ssh("until grep -q problem:slot /run/dom0/boot.record; do sleep 1; done")


@pytest.mark.parametrize(("kind", "first"), [("bios", "autoexec.ipxe"), ("uefi", "snponly.efi")])
def test_the_network_starts_a_machine(
    kind: str, first: str, data: qemu.Drive, key: vm.Key, served: tuple[Path, str], place: Path
) -> None:
    directory, url = served
    told = ("--config", "hostname=attic", "--ssh-key", key.file.with_suffix(".pub"))
    dom0_os("netboot", directory, "--url", url, *told)
    network = qemu.NetworkBoot(directory, first)
    with vm.VirtualMachine(firmware(kind, place), drives=[data], network_boot=network, key=key) as machine:
        is_mybox_named_attic(machine)


def test_a_machine_without_a_disk_has_its_images_from_the_network(
    key: vm.Key, served: tuple[Path, str], place: Path
) -> None:
    directory, url = served
    told = ("--image", data_disk.provide_archive(), "--ssh-key", key.file.with_suffix(".pub"))
    dom0_os("netboot", directory, "--url", url, *told)
    network = qemu.NetworkBoot(directory, "autoexec.ipxe")
    with vm.VirtualMachine(qemu.Bios(), network_boot=network, memory=3072, key=key) as machine:
        machine.wait_for("are in the Engine's store")
        machine.wait_for_services()
        assert "loading" not in machine.console()


def state(machine: vm.VirtualMachine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.ssh("dom0 os status --json").stdout)
    return found


def serve_update(file: Path, served: tuple[Path, str]) -> str:
    directory, url = served
    shutil.copyfile(file, directory / file.name)
    (directory / f"{file.name}.sha256").write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    return f"{url}/{file.name}"


def damaged(place: Path) -> Path:
    """The base OS with one bit of its root another one, before anybody took its digest."""
    file = place / "damaged.efi"
    content = bytearray((vm.base_os() / build.UKI).read_bytes())
    initrd = base_os().initrd
    content[initrd.start + initrd.size // 2] ^= 1
    file.write_bytes(content)
    return file


def test_an_update_that_works_is_blessed_and_one_that_does_not_is_left_again(
    contract: BootContract, data: qemu.Drive, key: vm.Key, served: tuple[Path, str], place: Path
) -> None:
    drives = [write_disk(contract, place / "boot.img"), data]
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for_services()
        assert (state(machine)["running"], state(machine)["good"]) == ("a", "a")
        refused = machine.ssh(f"dom0 os update {serve_update(damaged(place), served)} --yes", check=False)
        assert refused.code != 0
        assert "is damaged: its section .initrd is not what was built" in refused.stderr
        assert (state(machine)["next"], state(machine)["slots"][1]["version"]) == ("", "")
        machine.ssh(f"dom0 os update {serve_update(vm.base_os() / build.UKI, served)} --yes")
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for("starting slot b trial")
        machine.wait_for("slot b has proved itself")
        machine.wait_for_services()
        assert (state(machine)["running"], state(machine)["good"], state(machine)["next"]) == ("b", "b", "")
        broken = tiny_os.make(place, "broken", tiny_os.PANICS).linux.file
        # Beside the login, which the restart ends.
        machine.ssh(f"nohup dom0 os update {serve_update(broken, served)} --reboot </dev/null >/dev/null 2>&1 &")
        machine.wait()
    for _ in range(3):
        with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
            machine.wait_for("tiny broken")
            machine.wait()
    with vm.VirtualMachine(qemu.Bios(), drives=drives, key=key) as machine:
        machine.wait_for_services()
        now = state(machine)
        assert (now["running"], now["good"], now["next"], now["failed"]) == ("b", "b", "", "a")


def test_whenever_the_power_is_cut_a_disk_has_the_old_or_the_new_one_and_can_be_updated_again(
    contract: BootContract, data: qemu.Drive, key: vm.Key, served: tuple[Path, str], place: Path
) -> None:
    drive = write_disk(contract, place / "boot.img")
    command = f"dom0 os update {serve_update(vm.base_os() / build.UKI, served)} --yes"
    with vm.VirtualMachine(qemu.Bios(), drives=[drive, data], key=key) as machine:
        machine.wait_for_services()
        update = threading.Thread(target=machine.ssh, args=(command,))
        update.start()
        while update.is_alive():
            snapshot = as_if_the_power_was_cut(machine, drive.file, place / "snapshot")
            snapshot.replace(place / state_of_disk(snapshot, place))
        update.join()
    assert state_of_disk(drive.file, place) == "new"
    with vm.VirtualMachine(qemu.Bios(), drives=[qemu.Drive(place / "begun"), data], key=key) as machine:
        machine.wait_for_services()
        machine.ssh(command)
        assert (state(machine)["running"], state(machine)["next"]) == ("a", "b")


def as_if_the_power_was_cut(machine: vm.VirtualMachine, disk: Path, snapshot: Path) -> Path:
    """What is on the disk at this instant, and not what the machine still has in its memory."""
    machine.process.send_signal(signal.SIGSTOP)
    try:
        shutil.copyfile(disk, snapshot)
    finally:
        machine.process.send_signal(signal.SIGCONT)
    return snapshot


def state_of_disk(disk: Path, place: Path) -> str:
    """`old`, `new`, or `begun`: old, with a part of the new one beside it. An assertion fails for any other."""
    environment = decisions(disk)
    assert is_whole(disk, "a", place)
    if environment == grub_environment.FRESH:
        argv = ["mdir", "-b", "-i", file_system(disk), "::dom0/b"]
        beside = subprocess.run(argv, check=False, capture_output=True)
        return "begun" if beside.stdout else "old"
    assert environment == {"good": "a", "next": "b", "left": "3", "failed": ""}
    assert is_whole(disk, "b", place)
    return "new"


def is_whole(disk: Path, slot: str, place: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=place) as directory:
        subprocess.run(["mcopy", "-n", "-s", "-i", file_system(disk), f"::dom0/{slot}", directory], check=True)
        argv = ["sha256sum", "--check", "--strict", "--quiet", "sums"]
        return subprocess.run(argv, cwd=Path(directory) / slot, check=False).returncode == 0


def test_one_that_never_brings_up_a_healthy_dom0_restarts_and_after_its_last_try_the_good_one_starts(
    contract: BootContract, place: Path
) -> None:
    drive = write_disk(contract, place / "boot.img")
    put_on_trial(drive.file, place, seconds=45)
    with vm.VirtualMachine(qemu.Bios(), drives=[drive]) as machine:
        machine.wait_for("slot a did not prove itself in 45 s")
        machine.wait()
    assert decisions(drive.file) == {"good": "b", "next": "a", "left": "0", "failed": ""}
    starts_the_good_one(drive)


def test_one_that_runs_well_and_does_not_read_as_it_was_written_is_never_blessed(
    contract: BootContract, data: qemu.Drive, key: vm.Key, place: Path
) -> None:
    drive = write_disk(contract, place / "boot.img")
    put_on_trial(drive.file, place, seconds=3600)
    initrd = bytearray(read_file(drive.file, "a/initrd"))
    assert initrd.startswith(b"070701")
    initrd[UNREAD] ^= 1
    write_file(drive.file, "a/initrd", bytes(initrd))
    with vm.VirtualMachine(qemu.Bios(), drives=[drive, data], key=key) as machine:
        machine.wait_for("slot a does not read from the boot medium as it was written", patience=2 * vm.PATIENCE)
        assert "problem:slot\tslot a does not read" in machine.ssh("cat /run/dom0/boot.record").stdout
        now = state(machine)
        assert (now["running"], now["good"], now["next"], now["failed"]) == ("a", "b", "", "a")
    starts_the_good_one(drive)


def put_on_trial(disk: Path, place: Path, *, seconds: int) -> None:
    """What is in slot a, for the last time; slot b is good."""
    config = read_file(disk, "grub.cfg").replace(b"set seconds=900", f"set seconds={seconds}".encode())
    write_file(disk, "grub.cfg", config)
    trial = {"good": "b", "next": "a", "left": "1", "failed": ""}
    write_file(disk, "grubenv", grub_environment.encode(trial))
    good = [BootFile(f"b/{file.name}", file.content) for file in uki.slot_files(tiny_os.make(place, "good"))]
    medium.write_files(good, place)
    subprocess.run(["mcopy", "-s", "-o", "-i", file_system(disk), str(place / "b"), "::dom0/"], check=True)


def starts_the_good_one(drive: qemu.Drive) -> None:
    with vm.VirtualMachine(qemu.Bios(), drives=[drive]) as machine:
        machine.wait_for("tiny good: ")
        machine.wait()
    assert decisions(drive.file) == {"good": "b", "next": "", "left": "", "failed": "a"}


def file_system(disk: Path) -> str:
    """As mtools names that of a boot disk."""
    return f"{disk}@@2M"


def read_file(disk: Path, name: str) -> bytes:
    argv = ["mtype", "-i", file_system(disk), f"::dom0/{name}"]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def write_file(disk: Path, name: str, content: bytes) -> None:
    argv = ["mcopy", "-o", "-i", file_system(disk), "-", f"::dom0/{name}"]
    subprocess.run(argv, check=True, input=content)


def decisions(disk: Path) -> dict[str, str]:
    """What GRUB finds at its next start."""
    return grub_environment.decode(read_file(disk, "grubenv"))
