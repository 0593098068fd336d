"""*Back up now…* of the page, on a real machine with a real restic: in a browser, from the question to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dom0.testing import browser
from dom0.testing.browser import Browser
from dom0.testing.machines import Machine
from dom0.testing.possible import require
from dom0.testing.web_page import Web

JOB = "dom0-backup-data"
ROW = "[data-key='box_data']"
COMPOSE = """
    name: box
    x-dom0:
      rollout: {{monitor: 1s, timeout: 60s}}
      backup:
        data:
          to: {to}
          env_file: ./backup.env
          schedule: "@yearly"
          before:
            - {{service: db, command: ["sh", "-c", "until [ -e /go ]; do sleep 0.1; done; rm /go; exit {code}"]}}
    services:
      db:
        image: busybox:test
        init: true
        command: ["sh", "-c", "echo one >/data/word; exec sleep 100000"]
        volumes: [data:/data]
    volumes: {{data: {{}}}}
    """


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    require(browser.missing(), "tests of the page")
    bring_up(machine, code=0)
    return machine


@pytest.fixture
def desk(box: Machine) -> Iterator[Browser]:
    with Web(box, "--operate") as web, Browser() as desk:
        desk.look(1440, 900)
        desk.open(web.address)
        desk.until("document.querySelectorAll('main .card').length > 2")
        desk.run("location.hash = '#/storage'")
        yield desk
        desk.run("0")  # what the console was told before is read with the answer
        assert desk.problems == []


def bring_up(machine: Machine, code: int) -> None:
    to = machine.project.parent / "backups"
    to.mkdir(exist_ok=True)
    machine.write(COMPOSE.format(to=to, code=code), {"backup.env": "RESTIC_PASSWORD=7d1f\n"})
    machine.up()
    machine.until_good()


def snapshots(box: Machine) -> list[str]:
    return [one["id"] for one in json.loads(box.dom0("backup", "ls", "data", "--json").stdout)]


def back_up(desk: Browser, box: Machine) -> None:
    """Up to the end of what is done before."""
    desk.click(f"[data-ask='backup {JOB} data']")
    desk.until("document.querySelector('#ask .main')?.disabled === false")
    assert "dom0 backup now data" in desk.text("#ask")
    desk.click("#ask .main")
    desk.until_text("the backup of data has begun: Storage says what comes of it", "#acts")
    desk.until_text("under way", ROW)
    assert not desk.run(f"!!document.querySelector(`{ROW} [data-ask]`)")  # one at a time
    box.docker("exec", "box-db-1", "touch", "/go")


def test_a_backup_that_was_asked_for_is_shown_until_it_is_made_and_can_be_restored(desk: Browser, box: Machine) -> None:
    assert "not yet" in desk.until_text("Back up now…", ROW)
    back_up(desk, box)
    shown = desk.until_text("backed up", ROW)
    [snapshot] = snapshots(box)
    assert f"snapshot {snapshot[:8]}" in shown
    [begun] = [
        one
        for one in map(json.loads, box.dom0("events", "--json").stdout.splitlines())
        if one["subject"] == f"dom0 start {JOB}"
    ]
    assert begun["actor"].endswith("on the page")
    box.docker("exec", "box-db-1", "sh", "-c", "echo two >/data/word")
    box.dom0("backup", "restore", "data", "--yes")
    assert box.docker("run", "--rm", "-v", "box_data:/data", "busybox:test", "cat", "/data/word").stdout == "one\n"


@pytest.fixture
def failing(box: Machine) -> Machine:
    bring_up(box, code=3)
    return box


def test_one_that_fails_is_said_to_and_the_last_one_stays(failing: Machine, desk: Browser) -> None:
    box, before = failing, snapshots(failing)
    back_up(desk, box)
    shown = desk.until_text("the last run failed", ROW)
    assert "the backup of data failed: exited with code 1; its next run is at" in shown
    assert f"dom0 logs {JOB}" in shown
    assert f"snapshot {before[0][:8]}" in shown
    assert "Back up now…" in shown
    assert snapshots(box) == before
    desk.run("location.hash = '#/'")
    shown = desk.until_text("the last run failed", "[data-key='Backups'] [data-key='box_data']")
    assert "the backup of data failed: exited with code 1" in shown
    assert f"dom0 logs {JOB}" in shown
    assert " ago" in shown  # the last one that was made
