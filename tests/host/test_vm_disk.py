"""Disks of a whole machine: the base OS in QEMU, real Engines on what it finds."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dom0.osimage.qemu import Drive
from dom0.testing import data_disk, file_systems, vm
from dom0.testing.hosts import CONTAINERD_STORE, Host

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

CLASSIC: Mapping[str, Any] = {"storage-driver": "overlay2"}
SIZE = 2 << 30  # bytes of data disks; the files are sparse
_numbers = itertools.count()


@pytest.fixture
def directory(virtual_machines: None) -> Iterator[Path]:
    with vm.scratch() as found:
        yield found


class Foreign:
    """The disk of another Linux: an Engine's store with the image built:1, of which container `theirs` always runs."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        self.file = file
        with Host(config=config) as host:
            host.run(
                ["docker", "build", "-q", "-t", "built:1", "-"], stdin=b"FROM busybox:test\nRUN echo mine >/mine\n"
            )
            run = ("run", "--detach", "--name", "theirs", "--restart", "always", "--volume", "log:/log")
            host.docker(*run, "built:1", "sh", "-c", "echo ran >>/log/log; sleep 100000")
            host.stop_engine()
            tree = host.root / "tree"
            for path, text in (
                ("usr/lib/os-release", 'PRETTY_NAME="Debian GNU/Linux 12"\n'),
                ("etc/hostname", "theirs\n"),
            ):
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_text(text)
            (tree / "var/lib").mkdir(parents=True)
            host.run(["cp", "--archive", "/var/lib/docker", str(tree / "var/lib")])
            data_disk.write(file, tree, label="root", size="256M")
        self._before = self._digest()

    @property
    def drive(self) -> Drive:
        return Drive(self.file)

    def is_untouched(self) -> bool:
        return self._digest() == self._before

    def _digest(self) -> str:
        with self.file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


class Console:
    """The shell of the host's own console."""

    def __init__(self, machine: vm.VirtualMachine) -> None:
        self._machine = machine
        machine.wait_for("Please press Enter")
        machine.type("")

    def ask(self, command: str) -> str:
        """What a shell command prints, without what programs of the host say meanwhile."""
        number = next(_numbers)
        self._machine.type(f"echo; echo begin-{number}-; {command}; echo end-{number}-")
        found = self._machine.wait_for(rf"(?s)\nbegin-{number}-\r?\n(.*?)\r?\n?end-{number}-\r?\n")
        lines = found[1].replace("\r", "").splitlines()
        return "\n".join(line for line in lines if not re.match(r"dom0: |\[ *\d+\.\d+\] ", line))

    def wait_for_engine(self) -> None:
        self.ask("until docker version >/dev/null 2>&1; do sleep 1; done")

    def disks(self) -> dict[str, Any]:
        return self.document("cat /run/dom0/os/disks.json")

    def document(self, command: str) -> dict[str, Any]:
        """What it prints as one line. A program of the host may say something in the middle of that: then once more."""
        for _ in range(3):
            with contextlib.suppress(json.JSONDecodeError):
                found: dict[str, Any] = json.loads(self.ask(command))
                return found
        raise AssertionError(f"{command}: prints no JSON: {self.ask(command)}")

    def power_off(self) -> None:
        self._machine.type("poweroff")
        self._machine.wait()


SLOW = 'trap "sleep 40; echo whole >/kept/kept; exit" TERM; while :; do sleep 1; done'
RESCUE = {"dom0-rescue"}  # there is no dom0 image on these machines


def boot(*drives: Drive, contract: str = "") -> vm.VirtualMachine:
    words = " ".join(f"dom0.{setting}" for setting in f"medium=none {contract}".split())
    return vm.VirtualMachine(vm.direct(words), drives=drives)


def _read(program: str, *arguments: str) -> str:
    argv = [f"/usr/sbin/{program}", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def test_a_blank_disk_is_formatted_with_consent_and_images_of_other_linuxes_come_to_it_once(directory: Path) -> None:
    """Their disks, with stores of both kinds, stay as they are; the second boot is after a power cut. It ends with a
    power-off, which waits for a container that may take a minute, and leaves nothing to be done in the disk's journal.
    """
    foreign = [Foreign(directory / "classic", CLASSIC), Foreign(directory / "containerd", CONTAINERD_STORE)]
    own = vm.blank(directory / "own", SIZE)
    drives = [own, *(disk.drive for disk in foreign)]
    with boot(*drives, contract="format=blank adopt=copy-images") as machine:
        for device in ("/dev/vdb", "/dev/vdc"):
            assert machine.wait_for(f"the images of {device} (.*)")[1].strip() == "are copied"
        console = Console(machine)
        assert "mine" in console.ask("docker run --rm built:1 cat /mine")
        assert set(console.ask("docker ps --all --format '{{.Names}}'").split()) <= RESCUE
        assert console.disks()["data"]["kind"] == "disk"
        assert console.ask("dmsetup ls; losetup -a | grep -v squashfs") == "No devices found"
        name = console.ask("hostname")
        console.ask("docker rmi built:1; sync")
        machine.cut_power()
    with boot(*drives, contract="format=blank adopt=copy-images") as machine:
        console = Console(machine)
        assert console.ask("hostname") == name
        assert console.disks()["data"]["reason"] == "its label is dom0-data"
        console.wait_for_engine()
        console.ask("until [ ! -e /run/dom0/os/copy.lock ]; do sleep 1; done")
        assert set(console.ask("docker images --format '{{.Repository}}'").split()) - RESCUE == {"busybox"}
        console.ask(f"docker run --detach --stop-timeout 60 --volume kept:/kept busybox:test sh -c '{SLOW}'")
        console.power_off()
    assert all(disk.is_untouched() for disk in foreign)
    assert "needs_recovery" not in _read("dumpe2fs", "-h", str(own.file))
    assert _read("debugfs", "-R", "cat /var/lib/docker/volumes/kept/_data/kept", str(own.file)) == "whole\n"


@pytest.mark.parametrize("config", [CLASSIC, CONTAINERD_STORE], ids=["overlay2", "containerd"])
def test_another_linuxs_containers_run_and_its_disk_is_not_written_to_unless_it_may_be(
    directory: Path, config: Mapping[str, Any]
) -> None:
    foreign = Foreign(directory / "foreign", config)
    with boot(foreign.drive, contract="adopt=use-readonly") as machine:
        console = Console(machine)
        console.wait_for_engine()
        assert console.disks()["data"]["kind"] == "read-only"
        assert console.ask("docker exec theirs cat /log/log") == "ran\nran"
        assert console.ask("docker run --rm built:1 cat /mine") == "mine"
        console.power_off()
    assert foreign.is_untouched()
    for times in (2, 3):
        with boot(foreign.drive, contract="adopt=use") as machine:
            console = Console(machine)
            console.wait_for_engine()
            assert console.disks()["data"]["kind"] == "adopted"
            assert console.ask("docker exec theirs cat /log/log").split() == ["ran"] * times
            console.ask("hostname >>/data/etc/seen")
            assert len(set(console.ask("cat /data/etc/seen").split())) == 1
            assert console.ask("cat /foreign/etc/hostname") == "theirs"
            console.power_off()


def test_a_damaged_data_disk_and_another_linux_are_left_alone_and_the_machine_runs_in_memory(directory: Path) -> None:
    foreign = Foreign(directory / "foreign", CONTAINERD_STORE)
    damaged = directory / "damaged"
    file_systems.make(damaged, "ext4", label="dom0-data", mib=32)
    with damaged.open("r+b") as opened:
        for place, size in ((2048, 2048), (8193 * 1024, 4096), (24577 * 1024, 4096)):  # and copies of the superblock
            opened.seek(place)
            opened.write(b"\xff" * size)
    with boot(Drive(damaged), foreign.drive) as machine:
        machine.wait_for("DATA IN MEMORY, lost at power-off: /dev/vda is damaged")
        machine.wait_for("another Linux's Docker store is on /dev/vdb")
        console = Console(machine)
        console.wait_for_engine()
        assert set(console.ask("docker ps --all --format '{{.Names}}'").split()) <= RESCUE
        assert [problem["code"] for problem in console.disks()["problems"]] == ["data-in-memory", "data-disk"]
        listed = {device["device"]: device for device in console.document("/usr/lib/dom0/disk ls")["devices"]}
        assert listed["/dev/vdb"]["store_containers"] == 1
        console.power_off()
    assert foreign.is_untouched()


def test_what_boot2docker_left_is_used_or_said(directory: Path) -> None:
    left = directory / "tree/var/lib/boot2docker"
    (left / "etc").mkdir(parents=True)
    (left / "etc/hostname").write_text("moby\n")
    (left / "bootlocal.sh").write_text("touch /ran\n")
    file_systems.make(directory / "disk", "ext4", label="boot2docker-data", tree=directory / "tree", mib=256)
    with boot(Drive(directory / "disk")) as machine:
        machine.wait_for("/data/var/lib/boot2docker/bootlocal.sh is not run, because .* goes into /var/lib/dom0/")
        console = Console(machine)
        assert console.ask("hostname; ls -d /ran 2>/dev/null") == "moby"
        assert console.disks()["data"]["kind"] == "boot2docker"


def test_a_disk_that_cannot_be_written_and_a_store_nobody_asked_for_are_said_with_what_to_do(directory: Path) -> None:
    (directory / "tree/var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    file_systems.make(directory / "own", "ext4", label="dom0-data", mib=64)
    file_systems.make(directory / "foreign", "ext4", tree=directory / "tree", mib=64)
    with boot(Drive(directory / "own", read_only=True), Drive(directory / "foreign")) as machine:
        machine.wait_for("DATA IN MEMORY, lost at power-off: /dev/vda is write-protected")
        machine.wait_for("another Linux's Docker store is on /dev/vdb .*adopt=use-readonly")


def test_between_two_data_disks_nobody_guesses_until_one_is_named(directory: Path) -> None:
    files = [directory / "first", directory / "second"]
    for file in files:
        file_systems.make(file, "ext4", label="dom0-data", mib=256)
    drives = [Drive(file) for file in files]
    with boot(*drives) as machine:
        machine.wait_for("DATA IN MEMORY, lost at power-off: several disks are labelled dom0-data")
        console = Console(machine)
        uuid = re.findall(r"/dev/vdb \(uuid ([0-9a-f-]+)\)", console.disks()["data"]["reason"])[0]
        console.power_off()
    with boot(*drives, contract=f"data=uuid={uuid}") as machine:
        assert Console(machine).disks()["data"]["device"] == "/dev/vdb"


def test_a_full_disk_keeps_nobody_from_dom0_which_says_so(directory: Path) -> None:
    key = vm.Key(directory)
    drives = [vm.overlay(directory / "data", data_disk.provide(started=True))]
    with vm.VirtualMachine(vm.direct(key.setting), drives=drives, key=key) as machine:
        machine.wait_for_services()
        assert "the data of this machine" in machine.ssh("dom0 disk ls").stdout
        console = Console(machine)
        console.ask(
            "fallocate -l $(df -k /data | awk 'END { print $4 - 64 }')K /data/full; dd if=/dev/zero of=/data/last"
        )
        console.ask("sync")
        machine.cut_power()
    with vm.VirtualMachine(vm.direct(key.setting), drives=drives, key=key) as machine:
        problems = {problem["code"] for problem in machine.status()["problems"]}
        assert "data-full" in problems
        Console(machine).ask("rm /data/full /data/last")
        machine.wait_for_services()
