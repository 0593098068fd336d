"""`dom0 disk` beside a docker that answers as a host with the base OS would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.run import Output

RunCommand = Callable[..., Output]
DOCUMENT = {
    "data": {"kind": "disk", "device": "/dev/sda", "reason": "its label is dom0-data"},
    "problems": [{"code": "data-disk", "text": "two disks are labelled dom0-data"}],
    "devices": [
        {"device": "/dev/sda", "bytes": 500_000_000_000, "type": "ext4", "label": "dom0-data", "uuid": "0b0e"},
        {"device": "/dev/sdb", "bytes": 64_000_000_000, "blank": True},
        {"device": "/dev/sdc", "bytes": 1, "type": "ext4", "label": r"\x1b]0;owned\x07"},
    ],
}


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes the environment of a machine whose docker says what a program of the base OS would."""

    def make(said: str = "", *, code: int = 0, refused: str = "") -> dict[str, str]:
        programs = tmp_path / "bin"
        programs.mkdir()
        (tmp_path / "said").write_text(said)
        (tmp_path / "refused").write_text(refused)
        docker = programs / "docker"
        docker.write_text(
            f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat {tmp_path}/said\ncat {tmp_path}/refused >&2\nexit {code}\n'
        )
        docker.chmod(0o755)
        return {"PATH": f"{programs}:{os.environ['PATH']}"}

    return make


def test_disks_are_listed_with_what_they_are_to_this_machine(host: Any, dom0: RunCommand, tmp_path: Path) -> None:
    lines = dom0("disk", "ls", env=host(json.dumps(DOCUMENT))).stdout.splitlines()
    assert lines[0].split() == ["DEVICE", "SIZE", "TYPE", "LABEL", "UUID", "HOLDS"]
    assert lines[1].split()[:5] == ["/dev/sda", "500GB", "ext4", "dom0-data", "0b0e"]
    assert lines[1].endswith("the data of this machine")
    assert lines[2].endswith("nothing, it is blank")
    assert r"\x1b]0;owned\x07" in lines[3]
    assert lines[4:] == [
        "data: on /dev/sda: its label is dom0-data",
        "problem: two disks are labelled dom0-data",
    ]
    assert (tmp_path / "asked").read_text().endswith("/usr/lib/dom0/disk ls\n")


def test_json_is_for_programs(host: Any, dom0: RunCommand) -> None:
    found = json.loads(dom0("disk", "ls", "--json", env=host(json.dumps(DOCUMENT))).stdout)
    assert found["devices"][2]["label"] == "\x1b]0;owned\x07"
    assert found["data"] == DOCUMENT["data"]


@pytest.mark.parametrize("command", [("disk", "ls"), ("os", "status")])
@pytest.mark.parametrize(
    ("code", "said", "what"),
    [
        (127, "failed to execute /usr/lib/dom0/disk: No such file or directory", "this host does not run the base OS"),
        (126, "failed to execute /usr/lib/dom0/disk: Not a directory", "this host does not run the base OS"),
        (1, "reassociate to namespaces failed: Operation not permitted", "may not enter this host"),
        (1, "cannot open /proc/1/ns/mnt: Permission denied", "may not enter this host"),
    ],
)
def test_a_host_without_the_base_os_says_so_plainly(
    host: Any, dom0: RunCommand, command: tuple[str, str], code: int, said: str, what: str
) -> None:
    refused = dom0(*command, env=host(code=code, refused=f"nsenter: {said}"))
    assert refused.code == 1
    assert what in refused.stderr
    assert "nsenter" not in refused.stderr
    assert "base OS" in refused.stderr


@pytest.mark.parametrize(
    ("refused", "code", "what"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", 4, "Cannot connect"),
        ("Error response from daemon: No such container: dom0", 1, "does not run on this host"),
        ("Error response from daemon: container 0123 is not running", 1, "does not run on this host"),
    ],
)
def test_without_an_engine_or_a_dom0_it_says_so(
    refused: str, code: int, what: str, host: Any, dom0: RunCommand
) -> None:
    said = dom0("disk", "ls", env=host(code=1, refused=f"{refused}\n"))
    assert (said.code, what in said.stderr) == (code, True)
    assert "nsenter" not in said.stderr


def test_a_refusal_of_the_host_is_told_with_what_to_do(host: Any, dom0: RunCommand) -> None:
    refused = dom0("disk", "ls", env=host(code=1, refused="/dev/sdx: is not there\nnames of disks: dom0 disk ls\n"))
    assert refused.stderr == "dom0: /dev/sdx: is not there\n      names of disks: dom0 disk ls\n"


def test_formatting_needs_consent(host: Any, dom0: RunCommand, tmp_path: Path) -> None:
    env = host("/dev/sdb: is a data disk now\n")
    refused = dom0("disk", "format", "/dev/sdb", env=env)
    assert (refused.code, "only with consent" in refused.stderr) == (2, True)
    assert not (tmp_path / "asked").exists()
    assert dom0("disk", "format", "/dev/sdb", "--yes", env=env).stdout == "/dev/sdb: is a data disk now\n"
    assert (tmp_path / "asked").read_text().endswith("/usr/lib/dom0/disk format /dev/sdb --yes\n")


def test_adopting_needs_a_policy_and_tells_what_the_host_says(host: Any, dom0: RunCommand, tmp_path: Path) -> None:
    env = host("/dev/sdc1: can be adopted.\ndata=uuid=1\n")
    assert dom0("disk", "adopt", "/dev/sdc1", env=env).code == 2
    assert dom0("disk", "adopt", "/dev/sdc1", "--policy", "ignore", env=env).code == 2
    assert "data=uuid=1" in dom0("disk", "adopt", "/dev/sdc1", "--policy", "use", env=env).stdout
    assert (tmp_path / "asked").read_text().endswith("/usr/lib/dom0/disk adopt /dev/sdc1 use\n")
