"""A project in a directory of a git work tree that binds what is above it: on the machine it is the project's too."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s}}}}
    services:
      app:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        env_file: ../common.env
        environment: {{VERSION: "{version}"}}
        volumes: ["../conf:/conf", "../new:/new", "./own:/own", "../../outside/rows:/rows"]
"""
APP = "box-app-1"


@pytest.fixture(scope="module")
def box(machine: Machine, tree: Path) -> Machine:
    (tree / "unnamed").write_text("no part of the machine")
    box = Machine(machine.host, tree / "deploy")
    write(box, "1", "one")
    box.up()
    box.until_good()
    return box


def write(box: Machine, version: str, setting: str) -> None:
    files = {"../conf/app.db": "default", "../conf/app.ini": setting, "../common.env": "WORD=x\n"}
    box.write(COMPOSE.format(version=version), files)


def in_container(box: Machine, script: str) -> str:
    box.until_running(APP)
    return box.docker("exec", APP, "sh", "-c", script).stdout


def test_what_is_named_above_is_there_and_nothing_else(box: Machine) -> None:
    assert in_container(box, "cat /conf/app.ini; echo $WORD; echo new >/new/file; echo own >/own/file") == "onex\n"
    assert box.live(".dom0-parent/new/file").read_text() == "new\n"
    assert box.live("own/file").read_text() == "own\n"
    above = [".dom0-parent", "common.env", "conf", "new"]
    assert sorted(path.name for path in box.live(".dom0-parent").iterdir()) == above
    assert "nothing to do" in box.up().stdout


def test_what_is_outside_of_the_tree_and_not_there_is_the_machines(box: Machine) -> None:
    in_container(box, "echo row >/rows/1")
    assert box.live(".dom0-parent/.dom0-parent/outside/rows/1").read_text() == "row\n"
    rows = box.project / "../../outside/rows"
    rows.mkdir(parents=True)
    assert "../../outside/rows leads out of the project" in box.up(check=False).stderr
    rows.rmdir()
    rows.parent.rmdir()
    assert "nothing to do" in box.up().stdout
    assert box.live(".dom0-parent/.dom0-parent/outside/rows/1").read_text() == "row\n"


def test_what_a_container_wrote_above_stays_through_a_change_and_back(box: Machine) -> None:
    in_container(box, "echo precious >/conf/app.db; echo more >/conf/more")
    write(box, "2", "two")
    assert box.dom0("plan", str(box.project), check=False).code == 10
    box.up()
    box.until_good()
    assert in_container(box, "cat /conf/app.ini /conf/app.db /conf/more; echo $VERSION") == "twoprecious\nmore\n2\n"
    changed = {"path": ".dom0-parent/conf/app.db", "state": "changed"}
    assert json.loads(box.dom0("files", "--json").stdout) == [changed]
    box.dom0("rollback")
    box.until_good()
    assert in_container(box, "cat /conf/app.ini /conf/app.db /conf/more; echo $VERSION") == "oneprecious\nmore\n1\n"


def test_what_compose_runs_from_there_is_not_taken_over(box: Machine) -> None:
    box.dom0("down")
    box.write(COMPOSE.replace(', "../../outside/rows:/rows"', "").format(version="1"))
    box.host.run(["docker", "compose", "up", "--detach"], cwd=box.project)
    before = box.lives(APP)
    said = box.dom0("up", "--adopt", str(box.project), check=False)
    assert (said.code, box.lives(APP)) == (3, before)
    assert f"{box.project}: the project names what is above this directory" in said.stderr
    box.host.run(["docker", "compose", "down"], cwd=box.project)


def test_a_link_that_leads_out_is_refused_at_its_line_and_works_as_the_refusal_says(box: Machine, tree: Path) -> None:
    disk = tree.parent / "disk"
    disk.mkdir()
    (disk / "word").write_text("x")
    (box.project / "linked").symlink_to("../../disk")
    box.write(COMPOSE.format(version="3").replace("./own:", "./linked:"))
    refused = box.up(check=False)
    assert refused.code == 3
    where = "compose.yaml:11: services.app.volumes.2: linked is a link to ../../disk, which the machine does not have"
    assert where in refused.stderr
    command = refused.stderr.partition("make the link absolute: ")[2].splitlines()[0]
    subprocess.run(shlex.split(command), check=True)
    box.up()
    box.until_good()
    assert in_container(box, "cat /own/word") == "x"
