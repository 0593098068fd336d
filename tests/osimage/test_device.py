"""What is on a device, and that nothing which somebody uses is overwritten."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.errors import Dom0Error, UsageError
from dom0.osimage import device

GB = 10**9


def node(**fields: Any) -> device.BlockDevice:
    disk = {"path": "/dev/sdb", "type": "disk", "size": 8 * GB, "mountpoints": [None], **fields}
    return device.decode(json.dumps({"blockdevices": [disk]}))


PARTITION = {"path": "/dev/sdb1", "type": "part", "size": 4 * GB, "fstype": "ext4", "label": "photos"}


def test_what_is_on_it_is_named() -> None:
    found = node(model="Ultra Fit", tran="usb", children=[{**PARTITION, "mountpoints": [None]}])
    assert device.contents(found) == [
        "/dev/sdb: 8.0 GB, Ultra Fit usb",
        "  /dev/sdb1: 4.0 GB, ext4 labelled photos",
    ]
    assert device.contents(node()) == ["/dev/sdb: 8.0 GB", "  nothing that is known"]


def test_what_a_device_says_of_itself_cannot_make_lines_of_its_own() -> None:
    found = node(children=[{**PARTITION, "label": "x\n/dev/sdb: blank", "mountpoints": [None]}])
    assert device.contents(found)[1].endswith(r"labelled x\n/dev/sdb: blank")


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (node(mountpoints=["/"]), "is in use: /dev/sdb at /"),
        (node(children=[{**PARTITION, "mountpoints": ["/srv"]}]), "is in use: /dev/sdb1 at /srv"),
        (node(children=[{**PARTITION, "children": [{**PARTITION, "mountpoints": ["[SWAP]"]}]}]), r"\[SWAP\]"),
        (node(type="part"), "part of a disk"),
        (node(ro=True), "write-protected"),
        (node(size=GB // 2), "are needed"),
        (node(**{"log-sec": 4096}), "sectors of 4096 bytes"),
    ],
)
def test_what_must_not_be_overwritten_is_refused(found: device.BlockDevice, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        device.refuse(found, GB)


def test_a_disk_that_nobody_uses_is_not_refused() -> None:
    device.refuse(node(children=[PARTITION]), GB)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device of 16 MiB, gone with the test."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xa5" * (16 << 20))
    attached = subprocess.run(
        ["losetup", "--find", "--show", "--partscan", backing], capture_output=True, text=True, check=False
    )
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    yield Path(attached.stdout.strip())
    subprocess.run(["losetup", "--detach", attached.stdout.strip()], check=True)


def disk(path: Path) -> Path:
    path.write_bytes(b"\0" * (8 << 20))
    subprocess.run(["/usr/sbin/sfdisk", "--quiet", path], input=b"label: gpt\nsize=1M\n", check=True)
    return path


def test_a_disk_that_is_written_reads_back_and_ends_where_the_device_ends(loop: Path, tmp_path: Path) -> None:
    image = disk(tmp_path / "disk")
    said: list[str] = []
    with device.held(loop) as held:
        asyncio.run(device.overwrite(held, image, said.append))
    assert said == [f"writing to {loop}", "reading it back"]
    assert loop.read_bytes()[2 << 20 : 7 << 20] == image.read_bytes()[2 << 20 : 7 << 20]
    assert loop.read_bytes()[-512:].startswith(b"EFI PART")
    assert asyncio.run(device.look(loop)).size == 16 << 20


def test_a_device_that_somebody_has_mounted_is_refused_by_the_kernel_as_well(loop: Path, tmp_path: Path) -> None:
    subprocess.run(["mke2fs", "-q", loop], check=True)
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", loop, place], check=True)
    try:
        with pytest.raises(UsageError, match="is in use"):
            device.refuse(asyncio.run(device.look(loop)), 1)
        with pytest.raises(Dom0Error, match="busy"), device.held(loop):
            pass
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_device_that_is_held_cannot_be_mounted_by_somebody_else(loop: Path, tmp_path: Path) -> None:
    subprocess.run(["mke2fs", "-q", loop], check=True)
    with device.held(loop):
        mounted = subprocess.run(["mount", loop, tmp_path], capture_output=True, text=True, check=False)
    assert mounted.returncode
    subprocess.run(["mount", loop, tmp_path], check=True)
    subprocess.run(["umount", tmp_path], check=True)
