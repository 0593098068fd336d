"""`dom0 down` takes everything away but data; `dom0 up` finds it again, and changes nothing the second time."""

from __future__ import annotations

import json
import subprocess

import pytest

from dom0.testing.foreign import Foreign
from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {ssh: {}, home: {}, rollout: {monitor: 1s, timeout: 60s}}
    services:
      db:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        volumes: ["data:/data"]
      job:
        image: busybox:test
        command: ["sh", "-c", "echo ran >> /data/runs"]
        volumes: ["data:/data"]
    volumes: {data: {}}
    """
OURS = {"dom0", "dom0-sshd", "home-volume", "box-db-1", "box-job-1"}
FOREIGN = {"foreign", "box-foreign-1", "dom0-foreign"}


@pytest.fixture(scope="module")
def box(machine: Machine, foreign: Foreign) -> Machine:
    machine.write(COMPOSE)
    machine.up()
    machine.until_good()
    return machine


def test_programs_get_what_a_build_made_and_what_down_removed(box: Machine) -> None:
    built = [json.loads(box.dom0("build", "--json", "--tag", "box:other").stdout) for _ in range(2)]
    assert [one.pop("changed") for one in built] == [True, False]
    assert built[0] == built[1]
    assert (built[0]["name"], built[0]["id"]) == ("box:other", box.image_id("box:other"))
    (base,) = json.loads(box.dom0("image", "build", "dom0-base", "--json").stdout)
    assert (base["name"], base["id"]) == ("dom0-base", box.image_id("dom0-base"))
    with box.begin("status", "--watch", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        removed = json.loads(box.dom0("down", "--json").stdout)
        assert (watching.communicate()[1] != b"", watching.returncode) == (True, 1)
    assert {one["name"] for one in removed if one["kind"] == "container"} == OURS
    assert {one["name"] for one in removed if one["kind"] == "network"} == {"box_default"}
    box.up()


def test_a_second_up_changes_nothing(box: Machine) -> None:
    before, generations = box.lives(*OURS), box.history()
    assert "nothing to do" in box.up().stdout
    assert (box.lives(*OURS), box.history()) == (before, generations)


def test_down_leaves_volumes_and_up_finds_the_data(box: Machine, foreign: Foreign) -> None:
    box.docker("exec", "box-db-1", "sh", "-c", "echo precious > /data/file")
    said = box.dom0("down").stdout
    assert box.containers().keys() == FOREIGN
    assert "box_default" not in box.docker("network", "ls").stdout
    assert {"box_data", "home-volume"} <= set(box.docker("volume", "ls", "--quiet").stdout.split())
    assert "box_data" in said
    assert foreign.is_untouched()
    box.up()
    assert box.docker("exec", "box-db-1", "cat", "/data/file").stdout == "precious\n"
    assert foreign.is_untouched()


def test_down_is_done_at_once_where_nothing_is_left(box: Machine, foreign: Foreign) -> None:
    box.dom0("down")
    assert box.dom0("down").code == 0
    assert box.containers().keys() == FOREIGN
    assert foreign.is_untouched()


NOT_HERE = "dom0: dom0: does not run here\n      start it: dom0 up\n"
NOTHING_HERE = "nothing of dom0 is here; start it: dom0 up\n"
MAKES_THEM = "none; dom0 up makes them\n"
AFTER_DOWN = {
    "status": NOT_HERE,
    "status --watch": NOT_HERE,
    "history": NOT_HERE,
    "rollback": NOT_HERE,
    "abort": NOT_HERE,
    "confirm": NOT_HERE,
    "files": NOT_HERE,
    "ambassador ls": NOT_HERE,
    "exec dom0 true": NOT_HERE,
    "exec db true": "dom0: db: no container of it runs\n      start it: dom0 up\n",
    "logs dom0": f"dom0: dom0: has no container here\n      services that have: {MAKES_THEM}",
    "logs": NOTHING_HERE,
    "restart db": f"dom0: db: has no container here\n      services that have: {MAKES_THEM}",
}


def test_after_down_commands_say_that_it_does_not_run_here(box: Machine) -> None:
    """And name no container that is gone."""
    box.up()
    box.dom0("down")
    said = {line: box.dom0(*line.split(), check=False) for line in AFTER_DOWN}
    assert {line: one.stderr for line, one in said.items()} == AFTER_DOWN
    assert [line for line, one in said.items() if one.stdout] == []
    assert [line for line, one in said.items() if one.code == 0] == ["logs"]


def test_after_down_a_host_with_the_launcher_knows_that_it_is_no_stop(box: Machine) -> None:
    """`docker start dom0` would find nothing."""
    told = box.host.path("/run/dom0/os/launcher")
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text("runs=stopped\nimage=\nwhy=a person stopped it\n")
    try:
        box.up()
        box.docker("stop", "dom0")
        assert "start it: docker start dom0\n" in box.dom0("status", check=False).stderr
        box.dom0("down")
        assert "start it: dom0 up\n" in box.dom0("status", check=False).stderr
    finally:
        told.unlink()


def test_an_up_that_a_down_ends_names_no_container_that_is_gone(box: Machine) -> None:
    box.up()
    box.write(COMPOSE.replace("monitor: 1s", "monitor: 50s").replace("100000", "4711"))
    with box.begin("up", "--wait", str(box.project), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        box.until(lambda: box.status()["generation"]["watched_until"] > 0)
        box.dom0("down")
        said = waiting.communicate(timeout=PATIENCE)[1].decode()
    assert said == "dom0: dom0: ended before the generation had an outcome\n      see why: dom0 status\n"
    assert waiting.returncode == 1
    assert box.dom0("status", check=False).stderr == NOT_HERE
    box.write(COMPOSE)


def test_a_volume_that_is_named_is_deleted_and_the_others_stay(box: Machine) -> None:
    box.up()
    box.dom0("down", "--volumes", "box_data")
    left = set(box.docker("volume", "ls", "--quiet").stdout.split())
    assert "box_data" not in left
    assert {"home-volume", "foreign"} <= left
    box.up()
    assert box.docker("exec", "box-db-1", "cat", "/data/runs").stdout == "ran\n"


def test_after_down_another_project_may_come_up(box: Machine) -> None:
    box.dom0("down")
    box.write(COMPOSE.replace("name: box", "name: other"))
    box.up()
    assert {"other-db-1", "other-job-1"} <= box.containers().keys()
    assert "box-db-1" not in box.containers()
