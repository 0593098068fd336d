"""`disk mount` of the base OS: where the data of a boot is, and what is said of it."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path

import pytest

from dom0.testing import file_systems
from dom0.testing.disk_machine import DiskMachine

MINE = "4c4c4544-0000-1111-2222-333333333333"


def data_disk(machine: DiskMachine, *, name: str = "sda", mib: int = 64, tree: Path | None = None) -> None:
    file = machine.root / f"{name}.disk"
    file_systems.make(file, "ext4", label="dom0-data", mib=mib, tree=tree)
    machine.plug(name, file)


def damaged_data_disk(machine: DiskMachine) -> None:
    """Neither superblock of it is one."""
    data_disk(machine, mib=32)
    with (machine.root / "sda.disk").open("r+b") as opened:
        opened.seek(2048)
        opened.write(b"\xff" * 2048)
        for copy in (8193 * 1024, 24577 * 1024):
            opened.seek(copy)
            opened.write(b"\0" * 4096)


def disk_of(machine: DiskMachine, identity: str, *, name: str) -> None:
    """A data disk that the machine of that name used last."""
    tree = machine.root / f"{name}.tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/dom0-machine").write_text(f"{identity}\n")
    data_disk(machine, name=name, tree=tree)


def set_seconds(machine: DiskMachine, **settings: int) -> None:
    """How long it waits: label_deadline, named_deadline, quiet."""
    program = machine.root / "usr/lib/dom0/disks/mount.sh"
    text = program.read_text()
    for name, seconds in settings.items():
        text, count = re.subn(rf"(?m)^{name}=\d+", f"{name}={seconds}", text)
        assert count == 1
    program.write_text(text)


@pytest.fixture
def machine(machine: DiskMachine) -> DiskMachine:
    """It waits no longer for what does not come than a test has to."""
    set_seconds(machine, label_deadline=1, quiet=1)
    return machine


def usb_device(machine: DiskMachine, name: str = "usb1") -> Path:
    """As the kernel shows it before it may be a disk."""
    directory = machine.root / "sys/bus/usb/devices" / name
    directory.mkdir(parents=True)
    return directory


def problems(machine: DiskMachine) -> dict[str, str]:
    return {problem["code"]: problem["text"] for problem in machine.document()["problems"]}


def test_the_data_disk_is_mounted_and_its_parts_are_where_they_are_used(machine: DiskMachine) -> None:
    data_disk(machine)
    machine.disk("mount")
    assert {machine.mounts()[place] for place in ("/data", "/var/lib/docker", "/var/lib/dom0")} == {"/dev/sda"}
    assert machine.document()["data"]["kind"] == "disk"
    assert machine.document()["problems"] == []
    machine.console("dom0: data on /dev/sda: its label is dom0-data")


def test_what_was_written_is_there_after_a_power_cut(machine: DiskMachine) -> None:
    data_disk(machine)
    machine.disk("mount")
    machine.inside("/var/lib/docker/kept").write_text("yes")
    machine.run("/usr/bin/sync")
    machine.boot()
    machine.disk("mount")
    assert machine.inside("/var/lib/docker/kept").read_text() == "yes"


def test_without_a_disk_the_data_is_in_memory_and_that_is_said_loudly(machine: DiskMachine) -> None:
    machine.disk("mount")
    assert machine.mounts()["/var/lib/docker"] == "tmpfs"
    assert machine.document()["data"] == {"kind": "memory", "reason": "no disk is labelled dom0-data"}
    assert "lost at power-off" in problems(machine)["data-in-memory"]
    machine.console("dom0: DATA IN MEMORY, lost at power-off: no disk is labelled dom0-data")


def test_memory_that_the_contract_asks_for_is_no_problem(machine: DiskMachine) -> None:
    data_disk(machine)
    machine.contract("data=ram")
    machine.disk("mount")
    assert machine.mounts()["/data"] == "tmpfs"
    assert problems(machine) == {}
    machine.console("DATA IN MEMORY")


def test_with_consent_a_blank_disk_is_formatted_at_the_first_boot_and_used_at_the_second(machine: DiskMachine) -> None:
    machine.blank("sda", mib=512)
    machine.contract("format=blank")
    machine.disk("mount")
    machine.console("formatting /dev/sda")
    assert machine.mounts()["/data"] == "/dev/sda"
    machine.inside("/data/etc/hostname").write_text("box\n")
    machine.run("/usr/bin/sync")
    machine.boot("format=blank")
    machine.disk("mount")
    assert machine.inside("/data/etc/hostname").read_text() == "box\n"
    assert problems(machine) == {}


def test_a_disk_that_appears_late_is_waited_for(machine: DiskMachine) -> None:
    file = machine.root / "late.disk"
    file_systems.make(file, "ext4", label="late")
    machine.contract("data=label=late")
    plugging = threading.Timer(1.0, machine.plug, ("sdb", file))
    plugging.start()
    machine.disk("mount")
    plugging.join()
    assert machine.mounts()["/data"] == "/dev/sdb"


def test_a_disk_of_another_machine_takes_nobodys_place(machine: DiskMachine) -> None:
    """It is there first. Ours comes when disks with our label are no longer waited for."""
    machine.call_it(MINE)
    set_seconds(machine, label_deadline=1)
    disk_of(machine, "another-machine-1", name="sda")
    machine.flush()
    before = (machine.root / "sda.disk").read_bytes()

    def come() -> None:
        machine.console("the only data disk here is one that another machine used last; waiting up to 30 s")
        disk_of(machine, MINE, name="sdb")

    plugging = threading.Thread(target=come)
    plugging.start()
    machine.disk("mount")
    plugging.join()
    machine.flush()
    assert machine.mounts()["/data"] == "/dev/sdb"
    assert (machine.root / "sda.disk").read_bytes() == before


def test_a_disk_that_was_moved_to_new_hardware_is_waited_beside_once_and_is_its_own_then(machine: DiskMachine) -> None:
    machine.call_it(MINE)
    set_seconds(machine, label_deadline=1, named_deadline=3)
    disk_of(machine, "another-machine-1", name="sda")
    machine.disk("mount")
    assert machine.mounts()["/data"] == "/dev/sda"
    assert "another machine used it last" in machine.document()["data"]["reason"]
    assert problems(machine)["data-disk"] == (
        "/dev/sda is taken although another machine used it last: another-machine-1"
    )
    assert machine.inside("/data/etc/dom0-machine").read_text() == f"{MINE}\n"
    machine.run("/usr/bin/sync")
    machine.boot()
    set_seconds(machine, label_deadline=1000, named_deadline=1000)
    machine.disk("mount")
    assert machine.document()["data"]["reason"] == "its label is dom0-data"
    assert problems(machine) == {}


def test_a_machine_without_a_name_waits_for_no_other_disk(machine: DiskMachine) -> None:
    set_seconds(machine, label_deadline=1000, named_deadline=1000)
    disk_of(machine, "another-machine-1", name="sda")
    machine.disk("mount")
    assert machine.document()["data"]["reason"] == "its label is dom0-data"


def test_no_disk_is_formatted_while_one_on_usb_may_still_come(machine: DiskMachine) -> None:
    """Ours is a SCSI host for some time, because it has to spin."""
    set_seconds(machine, label_deadline=1, quiet=1)
    spare = machine.blank("sda")
    machine.contract("format=blank")
    host = usb_device(machine, "2-1:1.0") / "host6"
    host.mkdir()

    def spin() -> None:
        data_disk(machine, name="sdb")
        (host / "target6:0:0/6:0:0:0/block").mkdir(parents=True)

    spinning = threading.Timer(5.0, spin)
    spinning.start()
    machine.disk("mount")
    spinning.join()
    assert machine.mounts()["/data"] == "/dev/sdb"
    assert machine.survey()[f"/dev/{spare.name}"]["blank"]


def test_another_linux_is_not_adopted_while_usb_devices_appear(machine: DiskMachine, tmp_path: Path) -> None:
    """Each comes half a second after the one before it, and ours last: a machine that is busy may keep it longer."""
    set_seconds(machine, label_deadline=1, quiet=5)
    (tmp_path / "tree/var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    file = machine.root / "sda.disk"
    file_systems.make(file, "ext4", tree=tmp_path / "tree", mib=64)
    machine.plug("sda", file)
    machine.contract("adopt=use")
    usb_device(machine)
    own = machine.root / "sdb.disk"
    file_systems.make(own, "ext4", label="dom0-data", mib=64)
    coming = [threading.Timer(number / 2, usb_device, (machine, f"1-{number}")) for number in range(1, 15)]
    coming.append(threading.Timer(7.5, machine.plug, ("sdb", own)))
    for each in coming:
        each.start()
    machine.disk("mount")
    for each in coming:
        each.join()
    assert machine.mounts()["/data"] == "/dev/sdb"


def test_a_blank_disk_is_formatted_when_nothing_has_come_for_some_seconds(machine: DiskMachine) -> None:
    set_seconds(machine, label_deadline=1, quiet=2, named_deadline=1000)
    machine.blank("sda", mib=512)
    machine.contract("format=blank")
    usb_device(machine)
    machine.disk("mount")
    assert machine.document()["data"]["kind"] == "disk"


def test_a_usb_device_that_never_is_a_disk_is_not_waited_for_without_end(machine: DiskMachine) -> None:
    set_seconds(machine, label_deadline=1, named_deadline=3, quiet=1)
    machine.blank("sda", mib=512)
    machine.contract("format=blank")
    (usb_device(machine, "2-1:1.0") / "host6").mkdir()
    machine.disk("mount")
    assert machine.document()["data"]["kind"] == "disk"


def test_a_named_disk_that_never_comes_ends_in_memory(machine: DiskMachine) -> None:
    set_seconds(machine, named_deadline=2)
    data_disk(machine)
    machine.contract("data=label=elsewhere")
    machine.disk("mount")
    assert machine.mounts()["/data"] == "tmpfs"
    assert "data=label=elsewhere, and there is no such disk" in problems(machine)["data-in-memory"]


def test_a_disk_that_comes_too_late_is_said(machine: DiskMachine) -> None:
    machine.disk("mount")
    with machine.start("/usr/lib/dom0/disk", "watch"):
        machine.blank("sda")
        data_disk(machine, name="sdb")
        machine.console("/dev/sdb came after the boot had gone on without it")
        machine.power_off()


def test_a_disk_that_a_survey_has_met_first_is_said_too(machine: DiskMachine) -> None:
    machine.disk("mount")
    data_disk(machine, name="sdb")
    machine.disk("survey")
    with machine.start("/usr/lib/dom0/disk", "watch"):
        machine.console("/dev/sdb came after the boot had gone on without it")
        machine.power_off()


def test_a_disk_that_was_there_and_is_damaged_came_not_late(machine: DiskMachine) -> None:
    damaged_data_disk(machine)
    machine.disk("mount")
    assert machine.mounts()["/data"] == "tmpfs"
    with machine.start("/usr/lib/dom0/disk", "watch"):
        data_disk(machine, name="sdb")
        said = machine.console("/dev/sdb came after the boot had gone on without it")
        machine.power_off()
    assert "/dev/sda came after" not in said


def test_what_a_check_can_mend_is_mended_and_said(machine: DiskMachine) -> None:
    """A wrong number of free blocks, and the flag that the kernel sets when it meets an error."""
    data_disk(machine)
    machine.flush()
    file_systems.run(["debugfs", "-w", "-R", "ssv free_blocks_count 7", str(machine.root / "sda.disk")])
    file_systems.run(["debugfs", "-w", "-R", "ssv state 2", str(machine.root / "sda.disk")])
    machine.flush()
    machine.disk("mount")
    assert machine.mounts()["/data"] == "/dev/sda"
    assert "was damaged, and could be mended" in problems(machine)["data-disk"]


def test_what_a_check_cannot_mend_is_not_mounted_and_not_changed_further(machine: DiskMachine) -> None:
    damaged_data_disk(machine)
    machine.disk("mount")
    assert machine.mounts()["/data"] == "tmpfs"
    assert "e2fsck /dev/sda" in problems(machine)["data-in-memory"]


def test_a_full_disk_is_mounted_and_said_and_the_reserve_is_given_up(machine: DiskMachine) -> None:
    data_disk(machine, mib=512)
    machine.disk("mount")
    assert machine.inside("/data/etc/reserve").stat().st_size == 32 * file_systems.MIB
    machine.run("/usr/bin/dd", "if=/dev/zero", "of=/data/var/lib/docker/layer", "bs=1M", check=False)
    machine.boot()
    machine.disk("mount")
    assert "is full" in problems(machine)["data-full"]
    assert machine.inside("/data/var/lib/docker/layer").exists()
    machine.run("/usr/bin/dd", "if=/dev/zero", "of=/data/var/lib/dom0/state", "bs=1M", "count=20")


def test_another_linux_is_used_beside_what_is_its_own(machine: DiskMachine, tmp_path: Path) -> None:
    """Its /etc stays its own: name and name servers of this machine lie in its var/lib/dom0."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("theirs\n")
    (tree / "var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    file = machine.root / "sdb.disk"
    file_systems.make(file, "ext4", tree=tree, mib=64)
    machine.plug("sdb", file)
    machine.contract("adopt=use")
    machine.disk("mount")
    assert machine.document()["data"]["kind"] == "adopted"
    machine.inside("/data/etc/hostname").write_text("box\n")
    machine.inside("/var/lib/docker/new").write_text("")
    machine.run("/usr/bin/sync")
    machine.boot("adopt=use")
    machine.disk("mount")
    assert machine.inside("/data/etc/hostname").read_text() == "box\n"
    assert machine.inside("/foreign/etc/hostname").read_text() == "theirs\n"
    assert machine.inside("/foreign/var/lib/docker/new").exists()
    assert machine.inside("/foreign/var/lib/dom0/host/etc/hostname").exists()


def test_boot2dockers_disk_is_used_as_it_is(machine: DiskMachine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    (tree / "var/lib/boot2docker").mkdir()
    file = machine.root / "sdb.disk"
    file_systems.make(file, "ext4", label="boot2docker-data", tree=tree, mib=64)
    machine.plug("sdb", file)
    machine.disk("mount")
    assert machine.document()["data"]["kind"] == "boot2docker"
    assert machine.mounts()["/var/lib/docker"] == "/dev/sdb"
    assert machine.inside("/data/var/lib/boot2docker").is_dir()


@pytest.mark.parametrize("program", ["profile", "bootsync.sh", "bootlocal.sh"])
def test_boot2dockers_programs_are_not_run_and_that_is_said(machine: DiskMachine, tmp_path: Path, program: str) -> None:
    (tmp_path / "tree/var/lib/boot2docker").mkdir(parents=True)
    (tmp_path / f"tree/var/lib/boot2docker/{program}").write_text("touch /ran\n")
    (tmp_path / "tree/var/lib/dom0").mkdir()
    file = machine.root / "sdb.disk"
    file_systems.make(file, "ext4", label="boot2docker-data", tree=tmp_path / "tree", mib=64)
    machine.plug("sdb", file)
    machine.disk("mount")
    assert (
        f"boot2docker/{program} is not run, because it was written for another system" in problems(machine)["data-disk"]
    )
    machine.inside("/var/lib/dom0/bootlocal.sh").write_text("true\n")
    machine.boot()
    machine.disk("mount")
    assert machine.document()["problems"] == []


@pytest.mark.parametrize("label", ["dom0-data", "boot2docker-data"])
def test_a_disk_that_is_write_protected_is_not_called_damaged(machine: DiskMachine, label: str) -> None:
    file = machine.root / "sda.disk"
    file_systems.make(file, "ext4", label=label, mib=32)
    machine.plug("sda", file, read_only=True)
    machine.disk("mount")
    assert machine.document()["data"]["kind"] == "memory"
    assert "/dev/sda is write-protected" in problems(machine)["data-in-memory"]


def test_a_store_that_nobody_asked_for_is_named_with_the_way_to_use_it(machine: DiskMachine, tmp_path: Path) -> None:
    (tmp_path / "tree/var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    file = machine.root / "sdb.disk"
    file_systems.make(file, "ext4", tree=tmp_path / "tree", mib=64)
    machine.plug("sdb", file)
    machine.disk("mount")
    with machine.start("/usr/lib/dom0/disk", "watch"):
        machine.until(lambda: "data-disk" in problems(machine))
        said = problems(machine)["data-disk"]
        machine.power_off()
    assert said.startswith("another Linux's Docker store is on /dev/sdb (uuid ")
    assert "adopt=use-readonly" in said


def test_boot2dockers_store_of_another_kind_is_refused_with_the_reason(machine: DiskMachine, tmp_path: Path) -> None:
    (tmp_path / "tree/var/lib/docker/image/aufs/imagedb").mkdir(parents=True)
    file = machine.root / "sdb.disk"
    file_systems.make(file, "ext4", label="boot2docker-data", tree=tmp_path / "tree")
    before = file.read_bytes()
    machine.plug("sdb", file)
    machine.disk("mount")
    machine.flush()
    assert "its storage driver is aufs" in problems(machine)["data-in-memory"]
    assert file.read_bytes() == before


def test_the_engine_follows_the_kind_of_store_that_is_there(machine: DiskMachine, tmp_path: Path) -> None:
    """Else its images and containers would be hidden."""
    (tmp_path / "tree/var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    settings = machine.root / "etc/docker/daemon.json"
    assert json.loads(settings.read_text())["features"] == {"containerd-snapshotter": True}
    data_disk(machine, tree=tmp_path / "tree")
    machine.disk("mount")
    followed = json.loads(settings.read_text())
    assert "features" not in followed
    assert followed["storage-driver"] == "overlay2"


def test_a_survey_beside_a_mounted_data_disk_leaves_it_writable(machine: DiskMachine) -> None:
    data_disk(machine)
    machine.disk("mount")
    found = machine.survey()["/dev/sda"]
    assert found["mounted"] == "/data"
    machine.inside("/data/still").write_text("written")
    machine.run("/usr/bin/sync")
    assert subprocess.run(["debugfs", "-R", "stat /still", str(machine.root / "sda.disk")], check=True)
