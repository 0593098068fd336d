"""The programs `mark` and `record` of the base OS, under its own shell: what they write is what `dom0 boot` reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dom0.host.boot_record import read_all
from dom0.osimage import recipe
from dom0.package_data import os_recipe
from dom0.testing.busybox import BUSYBOX


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if os.geteuid() != 0 or not BUSYBOX.exists():
        pytest.skip("needs root and busybox-static")
    shutil.copytree(os_recipe() / "tree/usr", tmp_path / "usr")
    for name in ("usr/bin", "run/dom0/os", "var/lib/dom0", "proc", "dev"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, tmp_path / "usr/bin/busybox")
    for applet in recipe.load().applets:
        (tmp_path / "usr/bin" / applet).symlink_to("busybox")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "proc/uptime").write_text("4.70 3.00\n")
    return tmp_path


def call(root: Path, program: str, *arguments: str) -> None:
    subprocess.run(["chroot", str(root), f"/usr/lib/dom0/{program}", *arguments], check=True, stdin=subprocess.DEVNULL)


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "var/lib/dom0/boot").iterdir())


def test_a_mark_is_a_line_of_the_record(root: Path) -> None:
    call(root, "mark", "kernel")
    call(root, "mark", "disk", "ext4 on /dev/vda")
    (record,) = read_all(root / "run/dom0", root / "var/lib/dom0")
    assert [(mark.at, mark.stage, mark.text) for mark in record.marks] == [
        (4.7, "kernel", ""),
        (4.7, "disk", "ext4 on /dev/vda"),
    ]


def test_a_boot_has_one_copy_that_grows(root: Path) -> None:
    call(root, "mark", "kernel")
    call(root, "record", "copy")
    call(root, "mark", "disk")
    call(root, "record", "copy")
    assert kept(root) == ["0001.record"]
    (record,) = read_all(root / "run/dom0", root / "var/lib/dom0")
    assert (record.number, record.running, len(record.marks)) == (1, True, 2)


def test_the_next_boot_is_the_next_number_and_only_the_latest_fifty_stay(root: Path) -> None:
    directory = root / "var/lib/dom0/boot"
    directory.mkdir()
    for number in range(8, 60):
        (directory / f"{number:04}.record").write_text(f"{number}.00\tkernel\t\n")
    (directory / "notes").touch()
    call(root, "mark", "kernel")
    call(root, "record", "copy")
    assert kept(root) == [f"{number:04}.record" for number in range(11, 61)] + ["notes"]


def test_without_a_record_there_is_nothing_to_keep(root: Path) -> None:
    call(root, "record", "copy")
    assert not (root / "var/lib/dom0/boot").exists()
