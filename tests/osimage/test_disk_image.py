"""A boot disk, read back by the programs that others read disks with."""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from dom0.errors import Dom0Error, UsageError
from dom0.host import uki
from dom0.osimage import disk_image, grub, grub_environment, media
from dom0.osimage.boot_contract import BootContract
from dom0.package_data import os_recipe
from dom0.testing.fake_uki import make_uki

TOOLS = ("sfdisk", "mkfs.vfat", "mcopy", "grub-mkimage")
MISSING = [tool for tool in TOOLS if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {' '.join(MISSING)}")
MIB = 1 << 20


@pytest.fixture
def os(tmp_path: Path) -> uki.Uki:
    file = tmp_path / "dom0-os.efi"
    file.write_bytes(make_uki(version="1.0"))
    return uki.read(file)


def write(os: uki.Uki, contract: BootContract, target: Path, size: int = 0) -> None:
    files = asyncio.run(media.disk_files(os, contract))
    asyncio.run(media.write_disk(os, files, target, size or disk_image.least_size(files)))


def read(disk: Path, name: str) -> bytes:
    return subprocess.run(["mtype", "-i", f"{disk}@@2M", f"::{name}"], check=True, capture_output=True).stdout


def listed(disk: Path) -> set[str]:
    argv = ["mdir", "-b", "-/", "-i", f"{disk}@@2M"]
    out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return {line.removeprefix("::/") for line in out.splitlines() if not line.endswith("/")}


def partitions(disk: Path) -> dict[str, object]:
    out = subprocess.run(["sfdisk", "--json", disk], check=True, capture_output=True, text=True).stdout
    table: dict[str, object] = json.loads(out)["partitiontable"]
    return table


def image_tar(path: Path) -> Path:
    (path / "manifest.json").write_text("[]")
    with tarfile.open(path / "image.tar", "w") as archive:
        archive.add(path / "manifest.json", "manifest.json")
    return path / "image.tar"


def test_a_disk_has_a_loader_for_each_firmware_and_the_base_os_in_slot_a(os: uki.Uki, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    write(os, BootContract(), disk)
    assert listed(disk) == {
        *("EFI/BOOT/BOOTX64.EFI", "dom0/grub.cfg", "dom0/grubenv"),
        *(f"dom0/a/{name}" for name in ("linux", "initrd", "line", "version", "sums")),
    }
    assert read(disk, "dom0/a/initrd") == b"".join(os.initrd.chunks())
    assert grub_environment.decode(read(disk, "dom0/grubenv")) == grub_environment.FRESH
    assert read(disk, "EFI/BOOT/BOOTX64.EFI").startswith(b"MZ")
    table = partitions(disk)
    assert table["label"] == "gpt"
    found = [(one["name"], one["start"]) for one in table["partitions"]]  # type: ignore[attr-defined]
    assert found == [("dom0-bios", 2048), ("dom0-boot", 4096)]


def test_the_sums_of_a_slot_are_those_of_its_files(os: uki.Uki, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    write(os, BootContract(), disk)
    for name in ("linux", "initrd", "line", "version", "sums"):
        (tmp_path / name).write_bytes(read(disk, f"dom0/a/{name}"))
    subprocess.run(["sha256sum", "--check", "--strict", "sums"], cwd=tmp_path, check=True, capture_output=True)


def test_the_file_system_is_whole_and_carries_the_label(os: uki.Uki, tmp_path: Path) -> None:
    disk, esp = tmp_path / "disk.img", tmp_path / "esp"
    write(os, BootContract(), disk)
    with disk.open("rb") as opened:
        opened.seek(2 * MIB)
        esp.write_bytes(opened.read(disk.stat().st_size - 3 * MIB))
    subprocess.run(["/usr/sbin/fsck.vfat", "-n", esp], check=True, capture_output=True)
    assert esp.read_bytes()[71:82] == b"DOM0-BOOT  "


def test_a_bios_finds_grub_where_it_lies(os: uki.Uki, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    write(os, BootContract(), disk)
    data = disk.read_bytes()[: 2 * MIB]
    _, core = asyncio.run(grub.bios(grub.FIRMWARE["amd64"], 2))
    assert data[510:512] == b"\x55\xaa"
    assert struct.unpack_from("<Q", data, 0x5C) == (2048,)
    second, sectors = struct.unpack_from("<QH", data, MIB + 500)
    assert second == 2049
    assert data[MIB + 512 : MIB + len(core)] == core[512:]
    assert (sectors + 1) * 512 >= len(core)


def test_the_boot_contract_lies_beside(os: uki.Uki, tmp_path: Path) -> None:
    disk, image = tmp_path / "disk.img", image_tar(tmp_path)
    store = tmp_path / "store"
    store.write_bytes(b"prepared")
    write(os, BootContract(b"hostname=attic\n", b"ssh-ed25519 AAAA me\n", image, store), disk)
    assert read(disk, "dom0/config") == b"hostname=attic\n"
    assert read(disk, "dom0/authorized_keys") == b"ssh-ed25519 AAAA me\n"
    assert read(disk, "dom0/image.tar") == image.read_bytes()
    assert read(disk, "dom0/image.store") == b"prepared"


def test_a_size_that_is_too_small_is_refused_and_nothing_is_left(os: uki.Uki, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too small"):
        write(os, BootContract(), tmp_path / "disk.img", 100 * MIB)
    assert [path.name for path in tmp_path.iterdir()] == ["dom0-os.efi"]


def test_an_image_that_is_none_is_refused(os: uki.Uki, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"no tar")
    with pytest.raises(UsageError, match="not a tar file"):
        write(os, BootContract(image=tmp_path / "image.tar"), tmp_path / "disk.img")


def test_without_grub_the_refusal_says_what_to_install(os: uki.Uki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grub, "GRUB", Path("/nowhere"))
    with pytest.raises(Dom0Error, match="boot media need it") as refused:
        asyncio.run(media.disk_files(os, BootContract()))
    assert "grub-efi-amd64-bin" in refused.value.hint


def test_the_configuration_is_one_that_grub_understands() -> None:
    subprocess.run(["grub-script-check", os_recipe() / "grub.cfg"], check=True)
