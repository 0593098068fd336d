"""What a whole machine wrote down of its life: over hand-overs, kills of its agent, and its end."""

from __future__ import annotations

import json
from subprocess import PIPE
from typing import Any

import pytest

from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
    """
FIELDS = {"actor": "dom0", "reason": ""}


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(COMPOSE.format(version="first"))
    machine.up()
    machine.until_good()
    return machine


def events(box: Machine, *options: str) -> list[dict[str, Any]]:
    return [FIELDS | json.loads(line) for line in box.dom0("events", "--json", *options).stdout.splitlines()]


def kinds(box: Machine, *of: str) -> list[tuple[str, str]]:
    return [(one["kind"], one["subject"]) for one in events(box) if one["kind"] in of]


def test_the_first_up_is_told_to_its_end(box: Machine) -> None:
    told = events(box)
    assert [(one["kind"], one["actor"]) for one in told][:3] == [
        ("machine-booted", "engine"),
        ("agent-started", "dom0"),
        ("command", "uid 0"),
    ]
    made = [(one["kind"], one["reason"]) for one in told if one["subject"] == "box-web-1"]
    assert made == [("create-container", "it does not exist"), ("start-container", "created")]
    assert kinds(box, "generation-begun", "generation-good") == [
        ("generation-begun", "generation 1"),
        ("generation-good", "generation 1"),
    ]


def test_a_hand_over_keeps_the_sequence_and_who_follows_sees_both_agents(box: Machine) -> None:
    before = events(box)[-1]["seq"]
    with box.begin("events", "--follow", "--json", "--since", str(before), stdout=PIPE) as following:
        assert following.stdout is not None
        box.write(COMPOSE.format(version="second"))
        box.up()
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["kind"] != "agent-started":
            seen.append(json.loads(following.stdout.readline()))
        following.kill()
    assert [one["seq"] for one in seen] == [*range(before + 1, before + 1 + len(seen))]
    assert next(one["actor"] for one in seen if one["kind"] == "generation-begun") == "uid 0"
    told = [one["kind"] for one in seen]
    assert [kind for kind in told if kind in ("handover-begun", "agent-ended", "agent-started", "machine-booted")] == [
        "handover-begun",
        "agent-ended",
        "agent-started",
    ]


def test_a_command_inside_a_container_is_told_as_of_that_container(box: Machine) -> None:
    box.docker("exec", "dom0", "dom0", "rollback", "99", check=False)
    last = next(one for one in reversed(events(box)) if one["kind"] == "refused")
    assert (last["subject"], last["actor"]) == ("dom0 rollback", "uid 0 in dom0")
    assert last["reason"] == "generation 99: does not exist"


def test_what_ended_by_itself_and_what_was_done_about_it_is_told(box: Machine) -> None:
    since = str(events(box)[-1]["seq"])
    box.docker("kill", "box-web-1")
    box.until(lambda: [one for one in events(box, "--since", since) if one["kind"] == "start-container"])
    told = [(one["kind"], one["actor"]) for one in events(box, "--since", since) if one["subject"] == "box-web-1"]
    assert told == [("container-exited", "engine"), ("start-container", "dom0")]


def test_a_killed_agent_goes_on_counting(box: Machine) -> None:
    before = events(box)[-1]["seq"]
    box.docker("kill", "dom0")
    box.docker("start", "dom0")
    box.until(lambda: [entry["kind"] for entry in events(box, "--since", str(before))][-1:] == ["agent-started"])
    assert next(one["seq"] for one in events(box, "--since", str(before))) == before + 1


def test_after_down_the_story_can_still_be_read_to_its_end(box: Machine) -> None:
    before = [one["seq"] for one in events(box)]
    box.dom0("down")
    told = events(box)
    assert [one["seq"] for one in told][: len(before)] == before
    assert (told[-1]["kind"], told[-1]["actor"]) == ("down", "uid 0")
