"""Commands for the machine of another Engine ask the dom0 there, never the one beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing.hosts import path_with_ssh
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {rollout: {monitor: 1s, timeout: 60s}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
    """
RunElsewhere = Callable[..., Output]


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(COMPOSE)
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture(params=["ssh", "forwarded socket"])
def dom0(request: pytest.FixtureRequest, box: Machine, tmp_path: Path) -> RunElsewhere:
    """Runs `dom0` outside of `box`, with its Engine named: a program `ssh` that logs in nowhere, or another socket."""
    engine = "ssh://me@box" if request.param == "ssh" else box.host.docker_host
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "DOM0_"))}
    variables = kept | {"DOCKER_HOST": engine, "PATH": path_with_ssh(tmp_path, box.host), "HOME": str(tmp_path)}

    (tmp_path / "state").mkdir()
    (tmp_path / "state/ownership.json").write_text(json.dumps({"key": "00" * 32, "older": []}))  # of this machine
    variables["DOM0_STATE"] = str(tmp_path / "state")

    def run(*arguments: str) -> Output:
        argv = [sys.executable, "-m", "dom0", *arguments]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=180, env=variables, cwd=tmp_path, check=False
        )
        return Output(done.returncode, done.stdout, done.stderr)

    return run


def test_status_history_and_version_are_of_the_machine_that_is_named(box: Machine, dom0: RunElsewhere) -> None:
    status = dom0("status", "--json")
    assert status.stderr == ""
    assert json.loads(status.stdout)["project"] == "box"
    assert [one["number"] for one in json.loads(dom0("history", "--json").stdout)] == [
        one["number"] for one in box.history()
    ]
    assert json.loads(dom0("version", "--json").stdout)["dom0_image"] == box.image_id("dom0:latest")


def test_up_changes_the_machine_that_is_named(box: Machine, dom0: RunElsewhere) -> None:
    box.docker("stop", "--time", "1", "box-web-1")
    said = dom0("up", "--no-build")
    assert (said.code, said.stderr) == (0, "")
    assert box.containers()["box-web-1"] == "running"


def test_a_refusal_of_that_machine_is_told_as_that_of_this_one(box: Machine, dom0: RunElsewhere) -> None:
    assert dom0("rollback", "99").code == 2


@pytest.mark.parametrize("command", [("boot",), ("install-host",)])
def test_what_has_its_files_on_that_machine_is_refused(dom0: RunElsewhere, command: tuple[str, ...]) -> None:
    refused = dom0(*command)
    assert (refused.code, "is on the machine of the Engine that was named" in refused.stderr) == (2, True)


def test_what_has_its_files_in_the_root_container_is_done_there(box: Machine, dom0: RunElsewhere) -> None:
    listed = dom0("ssh", "ls", "--json")
    assert (listed.code, listed.stdout) == (0, "[]\n")


def test_without_a_dom0_there_it_says_so(box: Machine, dom0: RunElsewhere) -> None:
    box.docker("rename", "dom0", "away")
    try:
        for command in (("status",), ("ssh", "ls"), ("home", "ls")):
            refused = dom0(*command)
            assert refused.code == 1
            assert refused.stderr.startswith("dom0: dom0: does not run on that machine\n")
    finally:
        box.docker("rename", "away", "dom0")


def test_down_knows_what_is_ours_by_the_files_of_that_machine(box: Machine, dom0: RunElsewhere) -> None:
    typed = ["--label=dom0.project=box", "--label=dom0.role=service"]
    box.docker("run", "--detach", "--name", "typed", *typed, "busybox:test", "sleep", "100000")
    try:
        done = dom0("down")
        assert (done.code, done.stderr) == (0, "")
        assert set(box.containers()) == {"typed"}
    finally:
        box.docker("rm", "--force", "typed")
        box.up()
        box.until_good()
