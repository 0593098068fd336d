"""Settings and keys for a boot medium, refused where the base OS would leave them out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dom0.errors import UsageError
from dom0.osimage import boot_contract
from dom0.osimage.boot_contract import BootContract
from dom0.package_data import os_recipe

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOwNtx0/2wPZbCCPnA1BWPrAUDmJQAsXkF1Rf1kPjQfE me@here"


def test_settings_become_lines() -> None:
    written = boot_contract.config(["hostname=attic", "ip=192.168.0.2/24,192.168.0.1", "format=blank"])
    assert written == b"hostname=attic\nip=192.168.0.2/24,192.168.0.1\nformat=blank\n"


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("hostnam=attic", "no such setting"),
        ("hostname", "not a value for hostname"),
        ("hostname=At Tic", "not a value for hostname"),
        ("ip=192.168.0.2", "not a value for ip"),
        ("format=everything", "not a value for format"),
        ("image=../dom0.tar", "not a value for image"),
        ("slot=a", "no such setting"),
        ("hostname=a\nformat=blank", "not a value for hostname"),
    ],
)
def test_what_the_base_os_would_leave_out_is_refused(setting: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        boot_contract.config([setting])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        boot_contract.config(["ip=dhcp", "ip=dhcp"])


def test_keys_of_several_files_come_once_each(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pub", tmp_path / "b.pub"
    first.write_text(f"# mine\n{KEY}\n\n")
    second.write_text(f"{KEY}\r\n{KEY.replace('me@', 'you@')}\n")
    assert boot_contract.authorized_keys([first, second]).decode().splitlines() == [KEY, KEY.replace("me@", "you@")]


@pytest.mark.parametrize("text", ["", "-----BEGIN OPENSSH PRIVATE KEY-----\n", f'command="x" {KEY}\n', "ssh-dss AAAA"])
def test_what_is_no_public_key_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(UsageError, match="not a public key"):
        boot_contract.authorized_keys([file])


def test_the_settings_are_those_that_the_base_os_knows() -> None:
    program = (os_recipe() / "tree/usr/lib/dom0/contract").read_text()
    cases = set(re.findall(r"^    ([a-z_]+)\) (?:matches|\[) \"\$2\"", program, re.MULTILINE))
    assert cases - {"ssh_key", "medium", "slot", "trial"} == set(boot_contract.PATTERNS)
    for key in ("hostname", "data", "adopt", "image", "farm"):
        assert f"'{boot_contract.PATTERNS[key]}'" in program, key


def test_the_same_settings_have_the_same_digest(tmp_path: Path) -> None:
    image = tmp_path / "box.tar"
    image.write_text("images")
    contract = BootContract(b"hostname=box\n", b"key\n", image)
    assert contract.digest() == BootContract(b"hostname=box\n", b"key\n", image).digest()
    others = [BootContract(b"hostname=other\n", b"key\n", image), BootContract(b"hostname=box\n", b"", image)]
    others += [BootContract(b"hostname=box\n", b"key\n"), BootContract(b"", b"hostname=box\nkey\n", image)]
    assert contract.digest() not in {other.digest() for other in others}
    before = contract.digest()
    image.write_text("other images")
    assert contract.digest() != before
