"""Lifecycle hooks of a real machine: what they write into a bound directory says when they ran."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        restart: always
        stop_grace_period: 3s
        environment: {{WORD: "{word}"}}
        volumes: [/run/words:/words]
        post_start:
          - command: ["sh", "-c", "echo begin $$WORD $$EXTRA $$PWD $$(id -u) >>/words/log; {script}"]
            user: "12:12"
            working_dir: /tmp
            environment: [EXTRA=and]
        pre_stop:
          - command: ["sh", "-c", "echo end $$WORD >>/words/log; {before}"]
    """
BEGIN = "begin {} and /tmp 12"


@pytest.fixture(scope="module")
def box(machine: Machine) -> Iterator[Machine]:
    directory = words(machine)
    directory.mkdir()
    directory.chmod(0o777)
    yield machine
    shutil.rmtree(directory)


def words(machine: Machine) -> Path:
    return machine.host.path("/run/words")


def write(machine: Machine, word: str, script: str = "true", before: str = "true") -> None:
    machine.write(COMPOSE.format(word=word, script=script, before=before))


def bring_up(machine: Machine, word: str, before: str = "true") -> list[str]:
    """Each test begins with its own word: what was there before it is not its matter. Returns what was written."""
    write(machine, word, before=before)
    machine.up()
    machine.until_good()
    return new_lines(machine)


def new_lines(machine: Machine) -> list[str]:
    """What was written since the last call."""
    log = words(machine) / "log"
    found = log.read_text().splitlines()
    log.write_text("")
    return found


def test_post_start_has_run_when_up_is_over(box: Machine) -> None:
    assert bring_up(box, "first")[-1] == BEGIN.format("first")


def test_a_replaced_container_says_its_last_words(box: Machine) -> None:
    bring_up(box, "one")
    assert bring_up(box, "two") == ["end one", BEGIN.format("two")]


def test_stop_start_and_restart_run_hooks(box: Machine) -> None:
    bring_up(box, "by hand")
    box.dom0("stop", "web")
    assert new_lines(box) == ["end by hand"]
    box.dom0("start", "web")
    box.until((words(box) / "log").read_text)
    assert new_lines(box) == [BEGIN.format("by hand")]
    box.dom0("restart", "web")
    box.until(lambda: (words(box) / "log").read_text().count("\n") == 2)
    assert new_lines(box) == ["end by hand", BEGIN.format("by hand")]


def test_what_the_engine_starts_again_is_set_up_again(box: Machine) -> None:
    bring_up(box, "killed")
    box.host.run(["kill", "-9", str(box.container("box-web-1")["State"]["Pid"])])
    box.until((words(box) / "log").read_text)
    assert new_lines(box) == [BEGIN.format("killed")]


def test_a_post_start_that_fails_goes_back_and_says_why(box: Machine) -> None:
    bring_up(box, "good")
    write(box, "bad", "echo no such table; exit 3")
    failed = box.up(check=False)
    assert failed.code == 5
    assert "web: post_start[0] exited with code 3: no such table" in failed.stdout + failed.stderr
    box.until_good()
    assert new_lines(box) == ["end good", *[BEGIN.format("bad")] * 3, "end bad", BEGIN.format("good")]


def test_a_post_start_cut_off_by_the_death_of_the_agent_is_run_again(box: Machine) -> None:
    bring_up(box, "quick")
    write(box, "slow", "until test -e /words/go; do sleep 0.1; done; echo done >>/words/log")
    change = box.begin("up", str(box.project))
    box.until(lambda: BEGIN.format("slow") in (words(box) / "log").read_text())
    box.host.run(["kill", "-9", str(box.container("dom0")["State"]["Pid"])])
    change.wait(PATIENCE)
    box.until(lambda: (words(box) / "log").read_text().count(BEGIN.format("slow")) == 2)
    (words(box) / "go").touch()
    box.until_good()
    box.until(lambda: (words(box) / "log").read_text().count("done") == 2)
    assert new_lines(box) == ["end quick", *[BEGIN.format("slow")] * 2, *["done"] * 2]
    box.until(lambda: box.container("dom0")["Image"] == box.image_id("dom0:latest"))  # it has been taken over too
    box.until(lambda: box.containers().keys() == {"dom0", "box-web-1"})


def test_a_pre_stop_that_hangs_does_not_hold_the_machine(box: Machine) -> None:
    bring_up(box, "stuck", before="sleep 100000")
    assert bring_up(box, "free") == ["end stuck", BEGIN.format("free")]


def test_down_runs_pre_stop(box: Machine) -> None:
    bring_up(box, "last")
    box.dom0("down")
    assert new_lines(box) == ["end last"]
