"""The document of the base OS about its disks, read."""

from __future__ import annotations

import pytest

from dom0.errors import Dom0Error
from dom0.host import disk, on_host

EMPTY = b'{"data":{},"problems":[],"devices":[]}'


def test_what_blkid_escaped_is_text_again() -> None:
    found = disk.decode(
        rb'{"data":{},"problems":[],"devices":[{"device":"/dev/sda","bytes":1,"label":"my\\x20disk\\x1b"}]}'
    )
    assert found.devices[0].label == "my disk\x1b"
    assert disk.unescape(r"caf\xc3\xa9 \xff \x5cx41") == "café \ufffd \\x41"


@pytest.mark.parametrize("wrong", [b"", b"{}", b'{"data":{},"problems":[],"devices":[{"bytes":1}]}', b"\xff"])
def test_what_is_no_such_document_is_refused(wrong: bytes) -> None:
    with pytest.raises(Dom0Error, match=r"disks\.json"):
        disk.decode(wrong)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (disk.Device(device="/dev/sda", bytes=1), "the data of this machine"),
        (disk.Device(device="/dev/sdb", bytes=1, blank=True), "nothing, it is blank"),
        (disk.Device(device="/dev/sdb", bytes=1, table="gpt"), "partitions"),
        (
            disk.Device(device="/dev/sdb", bytes=1, type="swap", closed="a swap is not looked into"),
            "a swap is not looked into",
        ),
        (
            disk.Device(
                device="/dev/sdb",
                bytes=1,
                system="Debian",
                engine="20.10",
                store="overlay2",
                store_path="var/lib/docker",
                store_containers=2,
                store_images=1,
            ),
            "Debian, a Docker store of Engine 20.10 (overlay2, 2 containers, 1 images) in var/lib/docker",
        ),
    ],
)
def test_a_device_is_told_in_words(device: disk.Device, words: str) -> None:
    assert disk.holds(device, disk.Data(kind="disk", device="/dev/sda")) == words


def test_programs_of_the_host_are_reached_through_the_root_container() -> None:
    assert on_host.command("disk", "ls")[-2:] == ["/usr/lib/dom0/disk", "ls"]
    assert on_host.command("disk", terminal=True)[:5] == ["docker", "exec", "--interactive", "--tty", "dom0"]
