"""Data disks for virtual machines: an Engine finds on one what the host that filled it had."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from dom0.testing import data_disk

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a device: needs root")


def debugfs(disk: Path, request: str) -> str:
    argv = ["/usr/sbin/debugfs", "-R", request, str(disk)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@needs_root
def test_a_store_comes_to_the_disk_with_its_owners_devices_and_attributes(tmp_path: Path) -> None:
    """Layers of images live by them: a deleted file is a device, a replaced directory has an attribute."""
    store = tmp_path / "tree" / "var" / "lib" / "docker"
    store.mkdir(parents=True)
    os.mknod(store / "deleted", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    replaced = store / "replaced"
    replaced.mkdir()
    os.chown(replaced, 1000, 1001)
    replaced.chmod(0o2750)
    os.setxattr(replaced, "trusted.overlay.opaque", b"y")
    disk = tmp_path / "data.ext4"
    data_disk.write(disk, tmp_path / "tree", size="64M")
    assert "Type: character special" in debugfs(disk, "stat /var/lib/docker/deleted")
    found = debugfs(disk, "stat /var/lib/docker/replaced")
    assert "Mode:  02750" in found
    assert found.split("User:")[1].split()[:3] == ["1000", "Group:", "1001"]
    assert 'trusted.overlay.opaque (1) = "y"' in debugfs(disk, "ea_list /var/lib/docker/replaced")
