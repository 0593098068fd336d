"""The directory that machines start from over a network. That they do: test_vm_media."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
from pathlib import Path

import pytest

from dom0.errors import UsageError
from dom0.host import uki
from dom0.osimage import netboot
from dom0.osimage.boot_contract import BootContract
from dom0.osimage.build import COMMAND_LINE
from dom0.testing.fake_uki import make_uki
from dom0.testing.pages import page

NOTHING = BootContract()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "tree"


def write(tree: Path, contract: BootContract = NOTHING, *, version: str = "1.0", url: str = "") -> list[str]:
    file = tree.parent / "dom0-os.efi"
    file.write_bytes(make_uki(version=version))
    return asyncio.run(netboot.write(uki.read(file), contract, tree, url))


def test_the_script_starts_what_lies_beside_it(tree: Path) -> None:
    write(tree)
    script = (tree / "boot.ipxe").read_text().splitlines()
    assert script == [
        "#!ipxe",
        f"kernel 1.0/linux dom0.medium=none {COMMAND_LINE}",
        "initrd 1.0/initrd",
        "boot",
    ]
    assert sorted(path.name for path in (tree / "1.0").iterdir()) == ["initrd", "linux"]


def test_the_boot_contract_comes_as_an_archive_that_becomes_the_medium(tree: Path) -> None:
    write(tree, BootContract(b"hostname=attic\n", b"ssh-ed25519 AAAA me\n"))
    assert "initrd 1.0/medium.cpio" in (tree / "boot.ipxe").read_text().splitlines()
    archive = (tree / "1.0/medium.cpio").read_bytes()
    listed = subprocess.run(["cpio", "--list", "--quiet"], input=archive, check=True, capture_output=True).stdout
    files = {name for name in listed.decode().splitlines() if name not in ("medium", "medium/dom0")}
    assert files == {"medium/dom0/config", "medium/dom0/authorized_keys"}


@pytest.mark.parametrize(
    ("url", "chained"),
    [
        ("", "chain boot.ipxe"),
        ("http://192.168.0.1/dom0", "chain http://192.168.0.1/dom0/boot.ipxe"),
        ("https://[fd00::1]:8080/", "chain https://[fd00::1]:8080/boot.ipxe"),
    ],
)
def test_firmware_is_led_to_the_web_server(url: str, chained: str, tree: Path) -> None:
    write(tree, url=url)
    script = (tree / "autoexec.ipxe").read_text().splitlines()
    assert script == ["#!ipxe", ":again", f"dhcp && {chained} ||", "sleep 3", "goto again"]


@pytest.mark.parametrize(
    "url", ["192.168.0.1", "tftp://x/", "http://x/ && shell", "http://x/${net0/mac}", "http://x\nshell"]
)
def test_an_address_that_ipxe_would_read_otherwise_is_refused(url: str, tree: Path) -> None:
    with pytest.raises(UsageError, match="not an address of a web server"):
        write(tree, url=url)
    assert not tree.exists()


def test_a_newer_base_os_replaces_the_script_and_leaves_the_older_files(tree: Path) -> None:
    write(tree)
    write(tree, version="2.0")
    assert "kernel 2.0/linux" in (tree / "boot.ipxe").read_text()
    assert (tree / "1.0/initrd").exists()
    assert not [path.name for path in tree.iterdir() if path.name.startswith(".")]


def test_without_ipxe_the_tree_is_made_and_says_that_loaders_are_missing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netboot, "IPXE", tree.parent / "nowhere")
    assert write(tree) == []
    assert (tree / "boot.ipxe").exists()


@pytest.fixture
def loaders(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's package ipxe."""
    package = tree.parent / "ipxe"
    package.mkdir()
    for name in ("undionly.kpxe", "snponly.efi", "ipxe-amd64.efi"):
        (package / name).write_text(name)
    monkeypatch.setattr(netboot, "IPXE", package)


@pytest.mark.usefixtures("loaders")
def test_loaders_of_both_firmwares_are_copied(tree: Path) -> None:
    assert write(tree) == ["undionly.kpxe", "snponly.efi", "ipxe.efi"]
    assert (tree / "ipxe.efi").read_text() == "ipxe-amd64.efi"


@pytest.mark.usefixtures("loaders")
def test_the_lines_for_dnsmasq_lead_firmware_to_ipxe_and_ipxe_to_the_server(tree: Path) -> None:
    """Beside another DHCP server iPXE would have a file and no server, unless that is named."""
    write(tree)
    (lines,) = (block.text for block in page("docs/os.md").blocks if "dhcp-range" in block.text)
    said = [line.split("=", 1) for line in lines.splitlines() if "=" in line]
    firmware = [value.split(",") for key, value in said if key == "pxe-service"]
    (ipxe,) = (value.split(",") for key, value in said if key == "dhcp-boot")
    assert ["dhcp-match", "set:ipxe,175"] in said
    assert {words[0] for words in firmware} == {"tag:!ipxe"}
    assert {words[1]: (tree / words[3]).is_file() for words in firmware} == {"x86PC": True, "x86-64_EFI": True}
    tag, file, name, server = ipxe
    assert (tag, (tree / file).read_text()[:6], name) == ("tag:ipxe", "#!ipxe", "")
    assert ipaddress.ip_address(server) in ipaddress.ip_network("192.168.0.0/24")
