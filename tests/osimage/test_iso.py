"""An ISO, read back by the program that others read ISOs with. That firmware starts it: test_vm_media."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from dom0.host import uki
from dom0.osimage import media
from dom0.osimage.boot_contract import BootContract
from dom0.testing.fake_uki import make_uki

TOOLS = ("xorriso", "mkfs.vfat", "mcopy", "grub-mkimage")
MISSING = [tool for tool in TOOLS if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {' '.join(MISSING)}")


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("iso")
    (directory / "dom0-os.efi").write_bytes(make_uki(version="1.0"))
    contract = BootContract(b"hostname=attic\n", b"ssh-ed25519 AAAA me\n")
    asyncio.run(media.write_iso(uki.read(directory / "dom0-os.efi"), contract, directory / "dom0.iso"))
    return directory / "dom0.iso"


def xorriso(iso: Path, *arguments: str) -> str:
    argv = ["xorriso", "-indev", str(iso), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_it_holds_one_slot_and_the_boot_contract_and_no_count_of_tries(iso: Path) -> None:
    found = {line.strip("'") for line in xorriso(iso, "-find", "/dom0", "-type", "f").splitlines()}
    assert found == {
        *("/dom0/grub.cfg", "/dom0/eltorito.img", "/dom0/config", "/dom0/authorized_keys"),
        *(f"/dom0/a/{name}" for name in ("linux", "initrd", "line", "version", "sums")),
    }


def test_the_base_os_in_it_is_whole(iso: Path, tmp_path: Path) -> None:
    xorriso(iso, "-osirrox", "on", "-extract", "/dom0/a", str(tmp_path / "a"))
    subprocess.run(["sha256sum", "--check", "--strict", "sums"], cwd=tmp_path / "a", check=True, capture_output=True)


def test_both_firmwares_find_a_loader_on_a_cd_and_on_a_stick(iso: Path) -> None:
    catalog = xorriso(iso, "-report_el_torito", "plain")
    assert [line.split()[6] for line in catalog.splitlines() if "boot img" in line] == ["BIOS", "UEFI"]
    area = xorriso(iso, "-report_system_area", "plain")
    assert "grub2-mbr" in area
    assert "28732ac11ff8d211ba4b00a0c93ec93b" in area  # a partition that EFI looks into


def test_it_carries_the_label_that_the_base_os_looks_for(iso: Path) -> None:
    with iso.open("rb") as opened:
        opened.seek(16 * 2048 + 40)  # the primary volume descriptor, and its field for that
        assert opened.read(32).decode().strip() == "DOM0-BOOT"


def test_nothing_but_the_iso_is_left(iso: Path) -> None:
    assert {path.name for path in iso.parent.iterdir()} == {"dom0-os.efi", "dom0.iso"}
