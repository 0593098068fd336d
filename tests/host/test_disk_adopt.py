"""`disk adopt` of the base OS: which images are copied, and what is told of those that are not; Engines are played."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dom0.testing import file_systems
from dom0.testing.disk_machine import DiskMachine

# Images are lines of files: what the second Engine has, what of that it cannot save; what ours has.
_DOCKER = """#!/bin/sh
case "$*" in
*' image ls '*) cat /run/theirs ;;
'image inspect '*) grep -qxF "$3" /run/ours ;;
*' save '*) ! grep -qxF "$4" /run/broken && echo "$4" ;;
'load --quiet') read -r image && echo "$image" >>/run/ours ;;
esac
"""
# Memory over a disk needs the base OS's kernel. Here its place has the disk itself, which nothing can write to.
_PLAYED = """
lay_memory_over() { blockdev --setro "/dev/$1" && mkdir -p /dev/mapper && ln -s "/dev/$1" "/dev/mapper/dom0-$2"; }
take_memory_away() { rm -f "/dev/mapper/dom0-$2"; blockdev --setrw "/dev/$1"; }
unshare() { :; }
"""
UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def copying(machine: DiskMachine, tmp_path: Path) -> DiskMachine:
    """A machine with a data disk and the disk of another Linux, whose images are to be copied."""
    docker = machine.root / "usr/sbin/docker"
    docker.write_text(_DOCKER)
    docker.chmod(0o755)
    with (machine.root / "usr/lib/dom0/disks/adopt.sh").open("a") as program:
        program.write(_PLAYED)
    (tmp_path / "tree/var/lib/docker/image/overlay2/imagedb").mkdir(parents=True)
    for name, label, tree in (("sda", "dom0-data", None), ("sdb", "root", tmp_path / "tree")):
        file = machine.root / f"{name}.disk"
        file_systems.make(file, "ext4", label=label, tree=tree, mib=64)
        machine.plug(name, file)
    file_systems.run(["tune2fs", "-U", UUID, str(machine.root / "sdb.disk")])
    machine.flush()
    machine.contract("adopt=copy-images")
    machine.disk("mount")
    machine.run("/usr/bin/touch", "/run/ours", "/run/broken")
    return machine


def write(machine: DiskMachine, name: str, images: Sequence[str]) -> None:
    machine.inside(f"/run/{name}").write_text("".join(f"{image}\n" for image in images))


def ours(machine: DiskMachine) -> list[str]:
    return machine.inside("/run/ours").read_text().split()


def is_done(machine: DiskMachine) -> bool:
    return machine.inside(f"/var/lib/dom0/adopted/{UUID}").exists()


def test_images_are_copied_once(copying: DiskMachine) -> None:
    write(copying, "theirs", ["<none>:<none>", "second:1", "first:1"])
    copying.disk("adopt", "contract")
    assert ours(copying) == ["first:1", "second:1"]
    assert is_done(copying)
    write(copying, "ours", [])
    copying.disk("adopt", "contract")
    assert ours(copying) == []


def test_a_store_without_images_is_done(copying: DiskMachine) -> None:
    write(copying, "theirs", [])
    copying.disk("adopt", "contract")
    assert is_done(copying)


def test_an_engine_that_does_not_list_its_images_is_said_and_asked_again(copying: DiskMachine) -> None:
    copying.disk("adopt", "contract")
    assert not is_done(copying)
    copying.console(
        "the images of /dev/sdb could not be copied: /dev/sdb: the Engine on its store does not list its images"
    )
    write(copying, "theirs", ["first:1"])
    copying.disk("adopt", "contract")
    assert ours(copying) == ["first:1"]
    assert is_done(copying)


def test_an_image_that_cannot_be_copied_keeps_no_other_from_it_and_is_tried_again(copying: DiskMachine) -> None:
    images = ["a:1", "b:1", "c:1", "d:1"]
    write(copying, "theirs", images)
    write(copying, "broken", ["a:1", "c:1"])
    copying.disk("adopt", "contract")
    assert ours(copying) == ["b:1", "d:1"]
    assert not is_done(copying)
    copying.console("the images of /dev/sdb could not be copied: not copied: a:1 c:1")
    write(copying, "broken", [])
    copying.disk("adopt", "contract")
    assert ours(copying) == ["b:1", "d:1", "a:1", "c:1"]
    assert is_done(copying)


def test_by_hand_the_failure_is_the_end_of_the_command(copying: DiskMachine) -> None:
    write(copying, "theirs", ["a:1", "b:1"])
    write(copying, "broken", ["a:1"])
    said = copying.disk("adopt", "/dev/sdb", "copy-images", check=False)
    assert (said.code, "not copied: a:1" in said.stderr) == (1, True)
    assert ours(copying) == ["b:1"]
