"""A project that binds a directory around it: there it is on the machine as in the work tree, and each file once."""

from __future__ import annotations

import json
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
        environment: {{VERSION: "{version}"}}
        volumes: ["../..:/app", "./data:/data"]
      reader:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        volumes: ["..:/apps:ro", "../../src:/src:ro"]
"""
APP, READER = "box-app-1", "box-reader-1"


@pytest.fixture(scope="module")
def box(machine: Machine, tree: Path) -> Machine:
    box = Machine(machine.host, tree / "apps/deploy")
    write(box, "1", "one")
    box.up()
    box.until_good()
    return box


def write(box: Machine, version: str, source: str) -> None:
    files = {
        "../../src/main": source,
        "../../src/state": "default",
        "../../.env": "WORD=4c1e-secret\n",
        "../../cache/x": "",
        "../../.dockerignore": "cache\napps\n",
        "../beside": "x",
        "own": "own",
    }
    box.write(COMPOSE.format(version=version), files)


def run(box: Machine, container: str, script: str) -> str:
    box.until_running(container)
    return box.docker("exec", container, "sh", "-c", script).stdout


def test_a_container_finds_the_tree_as_it_is(box: Machine) -> None:
    names = run(box, APP, "cd /app && find . -type f | sort").split()
    deployed = ["./apps/deploy/compose.yaml", "./apps/deploy/own"]
    assert names == ["./.env", "./apps/beside", *deployed, "./src/main", "./src/state"]
    assert run(box, READER, "cat /apps/deploy/own /src/main") == "ownone"
    assert "nothing to do" in box.up().stdout


def test_a_file_is_one_whichever_way_leads_to_it(box: Machine) -> None:
    run(box, APP, "echo 1 >/data/seen; echo 2 >/app/apps/deploy/data/too; echo 3 >/app/apps/new; echo 4 >/app/src/new")
    assert run(box, APP, "cat /app/apps/deploy/data/seen /data/too") == "1\n2\n"
    assert run(box, READER, "cat /apps/deploy/data/seen /apps/new /src/new") == "1\n3\n4\n"
    assert box.live("data/too").read_text() == "2\n"
    assert list(box.live(".dom0-parent/deploy").iterdir()) == []
    run(box, APP, "rm /data/seen /data/too /app/apps/new /app/src/new")


def test_what_a_container_wrote_in_the_tree_stays_through_a_change_and_back(box: Machine) -> None:
    run(box, APP, "echo precious >/app/src/state")
    write(box, "2", "two")
    box.up()
    box.until_good()
    assert run(box, APP, "cat /app/src/main /app/src/state; echo $VERSION") == "twoprecious\n2\n"
    changed = {"path": ".dom0-parent/.dom0-parent/src/state", "state": "changed"}
    assert json.loads(box.dom0("files", "--json").stdout) == [changed]
    box.dom0("rollback")
    box.until_good()
    assert run(box, APP, "cat /app/src/main /app/src/state; echo $VERSION") == "oneprecious\n1\n"
    assert (box.project / "../../src/state").read_text() == "default"


def test_who_removes_what_is_in_the_projects_directory_leaves_the_tree(box: Machine) -> None:
    run(box, APP, "echo mine >/app/src/kept; cd /app/apps/deploy && rm -rf .[a-z]* own; true")
    seen = run(box, APP, "cat /app/src/kept; cd /app/apps && ls beside deploy")
    assert seen == "mine\nbeside\n\ndeploy:\ncompose.yaml\ndata\n"
    run(box, APP, "rm /app/src/kept; chown -R 0:0 /app && printf own >/app/apps/deploy/own")


def test_the_dotenv_of_the_tree_is_on_the_machine_and_not_in_the_image(box: Machine) -> None:
    assert run(box, APP, "cat /app/.env") == "WORD=4c1e-secret\n"
    in_image = box.docker("run", "--rm", "--entrypoint", "find", "dom0:latest", "/etc/dom0", "-name", ".env").stdout
    assert in_image == ""
