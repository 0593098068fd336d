"""What is asked of mmdebstrap for dom0-rootfs."""

from __future__ import annotations

from pathlib import Path

from dom0.images.archive import DEBIAN_KEYS, Archive
from dom0.images.recipe import data
from dom0.images.rootfs import mmdebstrap
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
