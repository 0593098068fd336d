"""Files under a writable bind: what containers wrote into them is theirs, whatever becomes of dom0 and the project."""

from __future__ import annotations

import json
import os
import shutil

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
        volumes: ["./conf:/conf", "./data:/data"]
      user:
        image: busybox:test
        user: "1000:1000"
        command: ["sh", "-c", "echo mine >/mine/made && cat /secret >/mine/seen && exec sleep 100000"]
        init: true
        volumes: ["./mine:/mine", "./secret:/secret:ro"]
"""
APP = "box-app-1"


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(COMPOSE.format(version="1"), {"conf/app.db": "default", "conf/app.ini": "one", "data/.keep": ""})
    (machine.project / "mine").mkdir()
    (machine.project / "secret").write_text("for one user\n")
    for name, mode in (("mine", 0o700), ("secret", 0o400)):
        os.chown(machine.project / name, 1000, 1000)
        (machine.project / name).chmod(mode)
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture
def written(box: Machine) -> str:
    """What the container has written into the file that the project brought."""
    in_container(box, "echo precious >/conf/app.db; mkdir -p /conf/empty; echo more >/data/more")
    return "precious\n"


def in_container(box: Machine, script: str) -> str:
    box.until_running(APP)
    return box.docker("exec", APP, "sh", "-c", script).stdout


def everything_is_there(box: Machine, written: str) -> None:
    box.until_good()
    assert box.live("conf/app.db").read_text() == written
    assert box.live("data/more").read_text() == "more\n"
    assert box.live("conf/empty").is_dir()
    assert in_container(box, "cat /conf/app.db") == written


def test_a_restart_of_dom0_leaves_what_a_container_wrote(box: Machine, written: str) -> None:
    box.docker("restart", "dom0")
    everything_is_there(box, written)
    assert json.loads(box.dom0("files", "--json").stdout) == [{"path": "conf/app.db", "state": "changed"}]


def test_a_user_writes_into_a_directory_of_its_own_and_reads_what_only_it_may(box: Machine) -> None:
    box.until_running("box-user-1")
    box.until(lambda: box.live("mine/seen").read_text() == "for one user\n")
    found = {name: box.live(name).stat() for name in ("mine", "mine/made", "secret")}
    assert {(status.st_uid, status.st_gid) for status in found.values()} == {(1000, 1000)}
    assert (found["mine"].st_mode & 0o7777, found["secret"].st_mode & 0o7777) == (0o700, 0o400)


def test_none_but_root_gets_into_the_state_also_where_an_earlier_dom0_left_it_open(box: Machine) -> None:
    state = box.host.path("/var/lib/dom0")
    assert state.stat().st_mode & 0o777 == 0o700
    state.chmod(0o755)
    box.docker("restart", "dom0")
    box.until(lambda: state.stat().st_mode & 0o777 == 0o700)
    box.until_good()


def test_an_up_of_something_else_leaves_it_too(box: Machine, written: str) -> None:
    box.write(COMPOSE.format(version="2"), {"conf/app.ini": "two"})
    rows = json.loads(box.dom0("plan", "--json", check=False).stdout)
    assert [(row["action"], row["name"]) for row in rows if row["kind"] == "file"] == [("update", "conf/app.ini")]
    box.up()
    everything_is_there(box, written)
    assert box.live("conf/app.ini").read_text() == "two"


def test_a_kill_of_the_agent_and_a_replacement_of_its_container_leave_it(box: Machine, written: str) -> None:
    box.host.run(["kill", "-9", str(box.container("dom0")["State"]["Pid"])])
    everything_is_there(box, written)
    box.docker("rm", "-f", "dom0")
    box.run_by_hand()
    everything_is_there(box, written)


def test_a_line_in_dockerignore_deletes_no_file_that_was_changed(box: Machine, written: str) -> None:
    box.write(COMPOSE.format(version="3"), {".dockerignore": "conf/app.db\n"})
    box.up()
    everything_is_there(box, written)
    (box.project / ".dockerignore").unlink()
    box.live("conf/app.db").write_text("default")
    box.up()
    box.until_good()


@pytest.mark.parametrize("lines", ["conf/library\n", "**/seed\n**/other\n", "*\nconf/library\n"])
def test_what_dockerignore_leaves_out_of_a_bound_directory_stays(box: Machine, lines: str) -> None:
    box.write(COMPOSE.format(version="3"), {"conf/library/seed": "brought", "conf/library/other": "brought"})
    box.up()
    in_container(box, "echo written >/conf/library/seed")
    (box.project / ".dockerignore").write_text(lines)
    planned = json.loads(box.dom0("plan", "--json", check=False).stdout)
    assert [row["name"] for row in planned if row["kind"] == "file"] == []
    box.up()
    box.until_good()
    assert in_container(box, "cat /conf/library/seed /conf/library/other") == "written\nbrought"
    (box.project / ".dockerignore").unlink()
    shutil.rmtree(box.project / "conf/library")


def test_a_conflict_is_foreseen_told_and_settled_either_way(box: Machine, written: str) -> None:
    box.write(COMPOSE.format(version="4"), {"conf/app.db": "new default"})
    planned = {(row["action"], row["name"]) for row in json.loads(box.dom0("plan", "--json", check=False).stdout)}
    assert ("keep", "conf/app.db") in planned
    told = box.up()
    assert "conf/app.db: changed here and in the project" in told.stdout
    everything_is_there(box, written)
    problem = next(problem for problem in box.status()["problems"] if problem["code"] == "file-conflict")
    assert (problem["subject"], problem["severity"]) == ("conf/app.db", "warning")
    assert "dom0 files diff conf/app.db" in problem["hint"]
    diff = box.dom0("files", "diff", "conf/app.db").stdout
    assert "-precious" in diff
    assert "+new default" in diff
    box.dom0("files", "keep", "conf/app.db")
    assert [problem["code"] for problem in box.status()["problems"]] == []
    everything_is_there(box, written)
    box.dom0("files", "take", "conf/app.db")
    assert in_container(box, "cat /conf/app.db /conf/app.db.dom0-old") == f"new default{written}"
    assert "no file of the project" in box.dom0("files").stdout


def test_a_rollback_brings_the_earlier_files_and_leaves_what_was_changed(box: Machine, written: str) -> None:
    box.write(COMPOSE.format(version="5"), {"conf/app.ini": "three"})
    box.up()
    in_container(box, "cat /conf/app.ini; echo mine >/conf/new")
    box.dom0("rollback")
    everything_is_there(box, written)
    assert box.live("conf/app.ini").read_text() == "two"
    assert box.live("conf/new").read_text() == "mine\n"
    box.up()
    box.until_good()
    assert box.live("conf/app.ini").read_text() == "three"


def test_what_lies_outside_of_the_project_cannot_be_named(box: Machine) -> None:
    in_container(box, "ln -sf /etc/passwd /conf/link")
    for path in ("../current", "/etc/passwd", "conf/../../current", "conf/link"):
        for command in ("diff", "take", "keep"):
            refused = box.dom0("files", command, path, check=False)
            assert (refused.code, "is no file of the project" in refused.stderr) == (2, True), refused


def test_down_and_up_leave_it(box: Machine, written: str) -> None:
    box.dom0("down")
    box.up()
    everything_is_there(box, written)


def test_a_service_finds_the_compose_files_that_it_binds(box: Machine) -> None:
    """As a development container does with the whole project."""
    box.write(COMPOSE.format(version="bound").replace("./conf:/conf", ".:/project:ro"))
    box.up()
    box.until_good()
    assert in_container(box, "cat /project/compose.yaml") == (box.project / "compose.yaml").read_text()
