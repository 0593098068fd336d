"""Taking a UKI apart, also one that somebody made to do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dom0.errors import Dom0Error
from dom0.host import uki
from dom0.osimage.build import COMMAND_LINE
from dom0.testing.fake_uki import make_pe, make_uki


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dom0-os.efi"


def content(part: uki.Section) -> bytes:
    return b"".join(part.chunks())


def test_a_uki_is_split_into_what_it_was_made_from(file: Path) -> None:
    file.write_bytes(make_uki(version="1.2-abc", linux=b"kernel", initrd=b"first root"))
    found = uki.read(file)
    assert (content(found.linux), content(found.initrd)) == (b"kernel", b"first root")
    assert (found.line, found.release, found.version) == (COMMAND_LINE, "6.12.0-test", "1.2-abc")
    assert found.architecture == "amd64"


@pytest.mark.parametrize(
    "osrel",
    [
        b"ID=debian\nVERSION_ID=13\n",
        b"ID=dom0\nVERSION_ID=..\n",
        b"ID=dom0\nVERSION_ID=boot.ipxe\n",
        b"ID=dom0\nVERSION_ID=1/../..\n",
    ],
)
def test_what_can_be_no_version_of_ours_is_none(osrel: bytes, file: Path) -> None:
    file.write_bytes(make_uki(osrel=osrel))
    assert uki.read(file).version == ""


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is not an EFI program"),
        (b"\x7fELF" + b"\0" * 100, "is not an EFI program"),
        (b"MZ", "is damaged: it is cut off"),
        (make_uki()[:200], "is damaged: it is cut off"),
        (make_uki()[:-600], "is damaged: it is cut off: it has 16808 bytes"),
        (make_uki(machine=0x14C), "is not an EFI program for amd64 or arm64"),
        (make_uki(initrd=b""), "has no section .initrd"),
        (make_pe({".linux": b"", ".initrd": b""}), "has no section .cmdline"),
        (make_uki(cmdline=b'quiet" ; halt'), "kernel line"),
        (make_uki(cmdline=b"console=$root"), "kernel line"),
        (make_uki(cmdline=b"quiet ; chain http://example.com"), "kernel line"),
        (make_uki(uname=b"6.12.0, signed by somebody"), "kernel has no release"),
        (make_uki(uname=b"6.12.0\nsigned by somebody"), "kernel has no release"),
        (make_uki(uname=b".."), "kernel has no release"),
        (make_uki(cmdline=b"a" * 5000), "too long"),
        (make_uki(cmdline=b"\xff\xfe"), "not UTF-8"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(data: bytes, what: str, file: Path) -> None:
    file.write_bytes(data)
    with pytest.raises(Dom0Error, match=what):
        uki.read(file)


@pytest.mark.parametrize(
    ("section", "content"),
    [
        (".linux", b"linux of"),
        (".initrd", b"initrd of"),
        (".cmdline", b"console="),
        (".osrel", b"ID=dom0"),
        (".uname", b"6.12.0"),
    ],
)
def test_one_bit_that_is_not_as_it_was_built_is_damage(section: str, content: bytes, file: Path) -> None:
    data = bytearray(make_uki())
    data[data.index(content)] ^= 4
    file.write_bytes(data)
    with pytest.raises(Dom0Error, match=rf"is damaged: its section {section} is not what was built"):
        uki.read(file)


def test_one_of_ours_says_what_it_was_built_from(file: Path) -> None:
    """Else damage to the name of that section would be no damage to any other."""
    file.write_bytes(make_uki().replace(b".sums\0", b".sumz\0"))
    with pytest.raises(Dom0Error, match=r"has no section .sums"):
        uki.read(file)
    file.write_bytes(make_uki(osrel=b"ID=debian\n").replace(b".sums\0", b".sumz\0"))
    assert uki.read(file).version == ""


@given(some.integers(0, 400), some.binary(min_size=1, max_size=8))
def test_damage_anywhere_in_its_head_is_a_refusal_or_another_uki(
    tmp_path_factory: pytest.TempPathFactory, place: int, bytes_: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.efi"
    data = bytearray(make_uki())
    data[place : place + len(bytes_)] = bytes_
    file.write_bytes(data)
    try:
        found = uki.read(file)
    except Dom0Error:
        return
    assert found.linux.start + len(content(found.linux)) <= len(data)
    assert found.initrd.start + len(content(found.initrd)) <= len(data)
