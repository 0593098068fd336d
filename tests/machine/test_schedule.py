"""A job on a schedule of a real machine: it runs when the minute begins, and is not cut off by a change."""

from __future__ import annotations

import time

import pytest

from dom0.testing.machines import Machine

PROJECT = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}, timezone: Europe/Berlin}}
    services:
      job:
        image: busybox:test
        command: ["sh", "-c", "echo run of {word}; until [ -e /shared/go ]; do sleep 0.1; done; exit {code}"]
        init: true
        volumes: [shared:/shared]
        x-dom0: {{schedule: "* * * * *"}}
    volumes: {{shared: {{}}}}
    """


def bring_up(machine: Machine, word: str, code: int = 0) -> None:
    machine.write(PROJECT.format(word=word, code=code))
    machine.up()
    machine.until_good()


def job(machine: Machine) -> dict[str, object]:
    [found] = [service for service in machine.status()["services"] if service["service"] == "job"]
    return dict(found)


def phase_is(machine: Machine, phase: str) -> None:
    machine.until(lambda: job(machine)["phase"] == phase, within=120)


def test_a_job_runs_when_it_is_due_and_a_change_waits_for_its_end(machine: Machine) -> None:
    bring_up(machine, "one")
    made = job(machine)
    assert made["phase"] == "scheduled"
    assert "Europe/Berlin" in str(made["reason"])
    assert made["next_run"] == pytest.approx(time.time(), abs=61)
    phase_is(machine, "ready")
    ran = job(machine)
    assert ran["started"] >= made["next_run"]  # type: ignore[operator]
    bring_up(machine, "two", code=3)
    assert job(machine)["container_id"] == ran["container_id"] == made["container_id"]
    machine.docker("run", "--rm", "-v", "box_shared:/shared", "busybox:test", "touch", "/shared/go")
    machine.until(lambda: job(machine)["container_id"] != ran["container_id"])
    phase_is(machine, "scheduled")
    machine.dom0("start", "job")
    machine.until(lambda: "job-failed" in [problem["code"] for problem in machine.status()["problems"]])
    assert "run of two" in machine.dom0("logs", "job").stdout
    assert "exited with code 3" in machine.dom0("status", "--exit-code", check=False).stdout
    machine.dom0("down")
