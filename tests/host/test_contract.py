"""The program `contract` of the base OS, under its own shell, with keys that a person has put on the boot medium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.cli import ssh
from dom0.testing import slots_machine
from dom0.testing.slots_machine import SlotsMachine

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIOwNtx0/2wPZbCCPnA1BWPrAUDmJQAsXkF1Rf1kPjQfE"
KEY = f"ssh-ed25519 {BLOB}"
OTHER = KEY.replace("jQfE", "jQfA")
KEPT = "/var/lib/dom0/ssh/authorized_keys"


@pytest.fixture
def machine(engines_possible: None) -> Iterator[SlotsMachine]:
    if reason := slots_machine.missing():
        pytest.skip(reason)
    with SlotsMachine() as made:
        yield made


def read(machine: SlotsMachine, keys: bytes) -> list[str]:
    """The keys that are left of those on the medium."""
    machine.write("dom0/authorized_keys", keys)
    assert machine.run("contract", "read").code == 0
    return machine.inside("/run/dom0/os/authorized_keys").read_text().splitlines()


def test_keys_are_taken_as_they_are(machine: SlotsMachine) -> None:
    assert read(machine, f"# mine\n\n{KEY} me@here\r\n{OTHER}\n".encode()) == [f"{KEY} me@here", OTHER]


@pytest.mark.parametrize("comment", [b"jos\xe9@laptop", "josé@laptop".encode(), b"a\tb", b"\x1b[2J"])
def test_a_comment_that_is_no_plain_text_is_left_out(comment: bytes, machine: SlotsMachine) -> None:
    assert read(machine, KEY.encode() + b" " + comment + b"\n") == [KEY]


@pytest.mark.parametrize(
    "line",
    [KEY[:-3], f"ssh-rsa {BLOB}", f"ssh-ed25519 {'A' * 68}", f'command="sh" {KEY}', "ssh-ed25519", "nonsense"],
)
def test_what_is_no_key_is_left_out_and_said(line: str, machine: SlotsMachine) -> None:
    assert read(machine, f"{line}\n{OTHER}\n".encode()) == [OTHER]
    assert "not understood, left out" in machine.inside("/run/dom0/os/problems").read_text()


def test_what_is_kept_of_it_can_be_read_by_dom0_ssh(machine: SlotsMachine, tmp_path: Path) -> None:
    read(machine, KEY.encode() + b" jos\xe9\n" + OTHER.encode() + b" me@here\n")
    assert machine.run("contract", "keys").code == 0
    kept = machine.inside(KEPT)
    assert [key.line for key in ssh.load(kept)] == [KEY, f"{OTHER} me@here"]
    assert machine.run("contract", "keys").code == 0
    assert len(ssh.load(kept)) == 2


def test_a_key_is_not_hung_on_a_line_without_an_end(machine: SlotsMachine) -> None:
    read(machine, f"{OTHER}\n".encode())
    kept = machine.inside(KEPT)
    kept.parent.mkdir(parents=True)
    kept.write_text(f"{KEY} me@here")
    machine.run("contract", "keys")
    assert [key.line for key in ssh.load(kept)] == [f"{KEY} me@here", OTHER]
