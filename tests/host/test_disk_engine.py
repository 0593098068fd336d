"""Stores that real Engines filled, as the disk survey of the base OS sees them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dom0.testing import data_disk
from dom0.testing.busybox import IMAGE
from dom0.testing.disk_machine import DiskMachine
from dom0.testing.hosts import CONTAINERD_STORE, Host

CLASSIC: Mapping[str, Any] = {"storage-driver": "overlay2"}


@pytest.mark.parametrize(("config", "kind"), [(CLASSIC, "overlay2"), (CONTAINERD_STORE, "containerd")])
def test_a_real_store_is_counted_as_its_engine_counts_it_and_can_be_used(
    fresh_host: Callable[..., Host], machine: DiskMachine, config: Mapping[str, Any], kind: str
) -> None:
    """Two images and one more name of one of them, two containers; 29 MB, of which nothing is changed by looking."""
    host = fresh_host(config=config)
    host.docker("tag", IMAGE, "another:name")
    host.run(["docker", "build", "--quiet", "--tag", "built:1", "-"], stdin=f"FROM {IMAGE}\nRUN echo x >/x\n".encode())
    for name in ("first", "second"):
        host.docker("create", "--name", name, "built:1", "sleep", "1")
    host.stop_engine()
    tree = host.root / "tree"
    (tree / "var/lib").mkdir(parents=True)
    host.run(["cp", "--archive", "/var/lib/docker", str(tree / "var/lib")])
    file = machine.root / "sda.disk"
    data_disk.write(file, tree, label="other", size="256M")
    disk = machine.plug("sda", file)
    before = disk.digest()
    found = machine.survey()["/dev/sda"]
    machine.flush()
    assert (found["store"], found["store_path"]) == (kind, "var/lib/docker")
    assert (found["store_containers"], found["store_images"]) == (2, 2)
    assert disk.digest() == before
    machine.contract("adopt=use")
    machine.disk("mount")
    assert machine.document()["data"]["kind"] == "adopted"
    settings = json.loads((machine.root / "etc/docker/daemon.json").read_text())
    assert settings.get("storage-driver") == (kind if kind == "overlay2" else None)
