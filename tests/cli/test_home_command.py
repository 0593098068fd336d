"""`dom0 home`: what it accepts, and one way there and back. The work itself is tested in tests/test_home.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dom0.names import ROOTFS_IMAGE
from dom0.run import Output
from dom0.testing import busybox
from dom0.testing.hosts import Host

RunCommand = Callable[..., Output]


def test_without_a_password_and_a_terminal_nothing_begins(dom0: RunCommand) -> None:
    refused = dom0("home", "backup", "file")
    assert refused.code == 2
    assert "no password given, and no terminal to ask for it" in refused.stderr
    assert "RESTIC_PASSWORD_FILE" in refused.stderr


def test_an_empty_password_is_refused(dom0: RunCommand) -> None:
    refused = dom0("home", "backup", "file", env={"RESTIC_PASSWORD": ""})
    assert (refused.code, "the password is empty" in refused.stderr) == (2, True)


def test_an_existing_file_is_not_replaced_unasked(dom0: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "work" / "file").write_text("precious")
    refused = dom0("home", "backup", "file", env={"RESTIC_PASSWORD": "x"})
    assert (refused.code, "file: exists" in refused.stderr) == (2, True)
    assert (tmp_path / "work" / "file").read_text() == "precious"


def test_a_directory_of_something_else_is_no_place_for_a_backup(dom0: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "work" / "photos").mkdir()
    (tmp_path / "work" / "photos" / "cat.jpg").touch()
    refused = dom0("home", "backup", "photos", env={"RESTIC_PASSWORD": "x"})
    assert (refused.code, "neither empty nor a restic repository" in refused.stderr) == (2, True)


@pytest.mark.parametrize("source", ["nope", "abc", "latest~"])
def test_what_is_neither_a_file_nor_a_snapshot_cannot_be_restored(dom0: RunCommand, source: str) -> None:
    refused = dom0("home", "restore", source)
    assert (refused.code, "no such file, and no snapshot's ID" in refused.stderr) == (2, True)


def test_a_restore_that_nobody_confirmed_changes_nothing(dom0: RunCommand) -> None:
    refused = dom0("home", "restore", "latest", stdin="y\n")
    assert (refused.code, "not confirmed, nothing was changed" in refused.stderr) == (2, True)


def test_a_machine_without_restic_or_its_image_is_told_what_to_install(dom0: RunCommand, engine_host: Host) -> None:
    engine_host.docker("create", "--name", "home-volume", "-v", "home-volume:/home/me", busybox.IMAGE, "true")
    env = {"DOCKER_HOST": engine_host.docker_host, "PATH": "/nonexistent"}
    refused = dom0("home", "snapshot", env=env)
    assert refused.stderr.splitlines()[1:] == [
        "dom0: dom0-restic: there is no such image, and restic, of which it is made, is not installed here",
        "      on the machine's host: apt-get install restic, then: dom0 backup now",
    ]


def test_a_snapshot_brings_a_deleted_file_back(dom0: RunCommand, engine_host: Host, chain_images: None) -> None:
    run = partial(dom0, env={"DOCKER_HOST": engine_host.docker_host})
    engine_host.docker("create", "--name", "home-volume", "-v", "home-volume:/home/me", ROOTFS_IMAGE, "true")
    in_home = ("run", "--rm", "--volumes-from", "home-volume", busybox.IMAGE, "sh", "-c")
    engine_host.docker(*in_home, "echo precious > /home/me/file")
    taken = json.loads(run("home", "snapshot", "--json").stdout)
    engine_host.docker(*in_home, "rm /home/me/file")
    restored = run("home", "restore", taken["snapshot"], "--yes", "--json")
    assert restored.code == 0
    assert engine_host.docker(*in_home, "cat /home/me/file").stdout == "precious\n"
    listed = json.loads(run("home", "ls", "--json").stdout)
    assert listed["kept"] == [json.loads(restored.stdout)["kept"]]
    assert [one["id"] for one in listed["snapshots"]] == [taken["snapshot"]]
