"""`dom0 os`: what it asks, refuses and says. The media themselves are in tests/host."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing.fake_uki import make_uki

RunCommand = Callable[..., Output]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOwNtx0/2wPZbCCPnA1BWPrAUDmJQAsXkF1Rf1kPjQfE me@here\n"
pytestmark = pytest.mark.skipif(not shutil.which("grub-mkimage"), reason="needs grub-mkimage")


@pytest.fixture
def work(dom0: RunCommand, tmp_path: Path) -> Path:
    """The directory that commands run in, with a base OS where they look for one."""
    (tmp_path / "work" / "dom0-os").mkdir()
    (tmp_path / "work" / "dom0-os" / "dom0-os.efi").write_bytes(make_uki(version="1.0"))
    (tmp_path / "work" / "key.pub").write_text(KEY)
    return tmp_path / "work"


def test_write_makes_a_disk_and_says_what_is_in_it(dom0: RunCommand, work: Path) -> None:
    written = dom0("os", "write", "dom0.img", "--size", "400M", "--ssh-key", "key.pub", "--config", "hostname=attic")
    assert (written.code, written.stderr) == (0, "")
    assert written.stdout == "dom0.img: boot disk of 419MB, base OS 1.0 in slot a\n"
    assert (work / "dom0.img").stat().st_size == 400 << 20


def test_write_does_not_replace_a_file_unasked(dom0: RunCommand, work: Path) -> None:
    (work / "dom0.img").write_text("precious")
    refused = dom0("os", "write", "dom0.img")
    assert (refused.code, refused.stderr) == (2, "dom0: dom0.img: exists\n      --yes confirms\n")
    assert (work / "dom0.img").read_text() == "precious"
    assert dom0("os", "write", "dom0.img", "--yes").code == 0
    assert (work / "dom0.img").stat().st_size > 1 << 20


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["dom0.img", "--size", "big"], "--size big: is no size"),
        (["dom0.img", "--size", "10M"], "--size 10M: is too small"),
        (["dom0.img", "--config", "hostnam=x"], "did you mean hostname?"),
        (["dom0.img", "--ssh-key", "dom0-os/dom0-os.efi"], "no public key"),
        (["dom0.img", "--image", "key.pub"], "is no tar file"),
        (["dom0.img", "--os", "key.pub"], "key.pub: is no EFI program"),
        (["nowhere/dom0.img"], "nowhere: no such directory"),
        (["/dev/null"], "is neither a file nor a block device"),
    ],
)
def test_write_refuses_before_it_writes(arguments: list[str], what: str, dom0: RunCommand, work: Path) -> None:
    refused = dom0("os", "write", *arguments)
    assert refused.code in (1, 2)
    assert what in refused.stderr
    assert not (work / "dom0.img").exists()


def test_without_a_base_os_the_error_says_how_to_make_one(dom0: RunCommand, work: Path) -> None:
    (work / "empty").mkdir()
    refused = dom0("os", "write", "dom0.img", "--os", "empty")
    assert refused.code == 2
    assert "dom0 os build --out empty" in refused.stderr
