"""What is asked of mmdebstrap and tar for dom0-rootfs."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from dom0.images.archive import DEBIAN_KEYS, Archive
from dom0.images.recipe import EPOCH, data
from dom0.images.rootfs import clone, mmdebstrap
from dom0.names import ROOTFS_IMAGE

SOURCES, TAR = Path("debian.sources"), Path("rootfs.tar")


def archive(keyring: str = f"{DEBIAN_KEYS}keyring.pgp") -> Archive:
    return Archive("http://archive/debian/", "trixie", ("main",), keyring)


def test_the_last_words_are_suite_target_and_sources() -> None:
    argv = mmdebstrap(data(ROOTFS_IMAGE), [archive()], SOURCES, TAR)
    assert argv[-3:] == ["trixie", "rootfs.tar", "debian.sources"]


def test_keys_of_debian_come_with_a_package_and_others_are_brought_along() -> None:
    assert not any("keyrings" in word for word in mmdebstrap(data(ROOTFS_IMAGE), [archive()], SOURCES, TAR))
    argv = mmdebstrap(data(ROOTFS_IMAGE), [archive("/etc/apt/keyrings/my mirror.asc")], SOURCES, TAR)
    assert "--setup-hook=upload '/etc/apt/keyrings/my mirror.asc' '/etc/apt/keyrings/my mirror.asc'" in argv


def a_host(root: Path) -> None:
    for name in (
        "usr/bin/tool",
        "etc/hostname",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/sshd_config",
        "etc/machine-id",
        "root/.ssh/id_ed25519",
        "home/me/diary",
        "var/lib/docker/overlay2/x",
        "var/lib/dom0/current",
        "var/lib/dpkg/status",
        "var/log/messages",
        "proc/cpuinfo",
        "tmp/junk",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


async def test_a_clone_holds_the_system_and_nothing_of_the_machine(tmp_path: Path) -> None:
    a_host(tmp_path / "root")
    await clone(data(ROOTFS_IMAGE), tmp_path / "root", tmp_path / "rootfs.tar")
    with tarfile.open(tmp_path / "rootfs.tar") as tar:
        files = {entry.name for entry in tar if entry.isfile()}
        directories = {entry.name for entry in tar if entry.isdir()}
    assert files == {"./usr/bin/tool", "./etc/hostname", "./etc/ssh/sshd_config", "./var/lib/dpkg/status"}
    assert {"./proc", "./tmp", "./home", "./var/log"} <= directories


async def test_a_clone_of_the_same_files_is_the_same_to_the_byte(tmp_path: Path) -> None:
    a_host(tmp_path / "root")
    tars = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for number, tar in enumerate(tars, 1):
        os.utime(tmp_path / "root" / "usr/bin/tool", (EPOCH + number, EPOCH + number))
        await clone(data(ROOTFS_IMAGE), tmp_path / "root", tar)
    assert tars[0].read_bytes() == tars[1].read_bytes()
