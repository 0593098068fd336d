"""`dom0 down` takes everything away but data; `dom0 up` finds it again, and changes nothing the second time."""

from __future__ import annotations

import json

import pytest

from dom0.testing.foreign import Foreign
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
    removed = json.loads(box.dom0("down", "--json").stdout)
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
