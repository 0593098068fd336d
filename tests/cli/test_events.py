"""`dom0 events` as a person and a program see it, with an agent and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from dom0.agent.events import Entry, Kind
from dom0.agent.journal import Journal, read
from dom0.cli import down
from dom0.run import Output
from dom0.testing.fake_agent import EndlessLines, FakeAgent, Lines, Turns

RunCommand = Callable[..., Output]
NOON = 1_700_000_000.0
UTC = {"TZ": "UTC"}


def entry(seq: int, text: str, **fields: Any) -> Entry:
    given = {"time": NOON + seq, "kind": "start-container", "subject": "box-web-1", **fields}
    return Entry(seq=seq, text=text, **given)


ENTRIES = (
    entry(1, "start box-web-1", reason="created"),
    entry(2, "dom0 up", kind=Kind.COMMAND, actor="uid 1000 in dom0-sshd"),
    entry(3, "box-web-1 exited with code 1", kind=Kind.CONTAINER_EXITED, actor="engine", count=12, since=NOON),
)


@pytest.fixture
def told(agent: FakeAgent) -> FakeAgent:
    """It answers a page to whoever asks for the first one, and nothing to whoever asks for more."""
    agent.answers["GET /v1/events"] = Turns([Lines(ENTRIES), Lines()])
    return agent


def test_events_are_one_line_each_with_reason_number_and_actor(told: FakeAgent, dom0: RunCommand) -> None:
    assert dom0("events", env=UTC).stdout.splitlines() == [
        "2023-11-14 22:13:21  start box-web-1 (created)",
        "2023-11-14 22:13:22  dom0 up  by uid 1000 in dom0-sshd",
        "2023-11-14 22:13:23  box-web-1 exited with code 1, 12 times since 2023-11-14 22:13:20",
    ]


def test_json_is_a_document_a_line(told: FakeAgent, dom0: RunCommand) -> None:
    lines = [json.loads(line) for line in dom0("events", "--json").stdout.splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert lines[1]["actor"] == "uid 1000 in dom0-sshd"


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (["--since", "2023-11-14T22:13:22+00:00"], [2, 3]),
        (["--until", "2023-11-14T22:13:22+00:00"], [1]),
        (["--until", "2"], [1, 2]),
        (["-n", "1"], [3]),
        (["-n", "0"], []),
        (["--since", "1s"], []),
    ],
)
def test_some_of_them_can_be_asked_for(told: FakeAgent, dom0: RunCommand, options: list[str], seen: list[int]) -> None:
    lines = dom0("events", "--json", *options).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == seen


def test_a_number_is_asked_of_the_agent(told: FakeAgent, dom0: RunCommand) -> None:
    dom0("events", "--since", "7")
    assert told.queries[0] == {"since": "7"}


@pytest.mark.parametrize(
    "options", [["--since", "noon"], ["--since", "1" * 5000], ["--until", "-"], ["-f", "--until", "1h"], ["-n", "-1"]]
)
def test_what_makes_no_sense_is_refused(agent: FakeAgent, dom0: RunCommand, options: list[str]) -> None:
    refused = dom0("events", *options)
    assert (refused.code, refused.stdout) == (2, "")


def test_hostile_names_reach_no_terminal(agent: FakeAgent, dom0: RunCommand) -> None:
    evil = "\x1b]0;owned\x07\nroot# \u202efdp"
    agent.answers["GET /v1/events"] = Turns([Lines([entry(1, f"start {evil}", reason=evil, actor=evil)]), Lines()])
    shown = dom0("events").stdout
    assert len(shown.splitlines()) == 1
    assert shown.rstrip("\n").isprintable()


def test_follow_shows_what_was_and_what_comes(agent: FakeAgent, environment: dict[str, str]) -> None:
    agent.answers["GET /v1/events"] = Turns([Lines(ENTRIES[:2]), Lines(), EndlessLines(ENTRIES[2:])])
    argv = [sys.executable, "-m", "dom0", "events", "--follow", "--json", "-n", "1"]
    with subprocess.Popen(argv, stdout=PIPE, stderr=PIPE, text=True, env=environment) as following:
        assert following.stdout is not None
        assert [json.loads(following.stdout.readline())["seq"] for _ in range(2)] == [2, 3]
        following.send_signal(signal.SIGINT)
        assert following.wait() == 130
    assert agent.queries[-1] == {"since": "2", "follow": "1"}


def test_an_agent_that_ends_is_followed_into_the_next_one(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["GET /v1/events"] = Turns([Lines(), Lines(ENTRIES[:1]), Lines(ENTRIES[1:])])
    shown = dom0("events", "--follow", "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in shown] == [1, 2, 3]
    assert [query["since"] for query in agent.queries[1:3]] == ["0", "1"]


def written(state: str, *texts: str) -> None:
    journal = Journal(Path(state), now=lambda: NOON)
    for text in texts:
        journal.note("start-container", text, f"start {text}", "created")


def test_without_an_agent_the_files_are_read(dom0: RunCommand, environment: dict[str, str]) -> None:
    written(environment["DOM0_STATE"], "a", "b")
    shown = dom0("events", env=UTC)
    assert (shown.code, shown.stdout.splitlines()) == (
        0,
        ["2023-11-14 22:13:20  start a (created)", "2023-11-14 22:13:20  start b (created)"],
    )
    assert dom0("events", "--since", "1", env=UTC).stdout.splitlines() == ["2023-11-14 22:13:20  start b (created)"]
    nothing_new = dom0("events", "--since", "2")
    assert (nothing_new.code, nothing_new.stdout, nothing_new.stderr) == (0, "", "")


def test_who_may_not_read_the_files_is_told_who_may(environment: dict[str, str]) -> None:
    written(environment["DOM0_STATE"], "a")
    os.chown(Path(environment["DOM0_STATE"], "events"), 65534, -1)  # of somebody else, as root's are to a user
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "dom0", "events"]
    refused = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [
        "dom0: dom0: does not run here",
        "      start it: dom0 up; or read its files as root: sudo dom0 events",
    ]


def test_without_an_agent_nothing_is_followed(dom0: RunCommand, environment: dict[str, str]) -> None:
    written(environment["DOM0_STATE"], "a")
    shown = dom0("events", "--follow")
    assert (shown.code, len(shown.stdout.splitlines())) == (1, 1)
    assert "dom0: does not run here" in shown.stderr


def test_where_nothing_of_dom0_is_that_is_said(dom0: RunCommand) -> None:
    shown = dom0("events")
    assert (shown.code, shown.stdout) == (1, "")
    assert "dom0: does not run here" in shown.stderr


def test_head_may_have_seen_enough(environment: dict[str, str]) -> None:
    written(environment["DOM0_STATE"], *map(str, range(2000)))
    argv = f"{sys.executable} -m dom0 events | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", argv], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (141, 1, "")


def test_down_is_noted_where_no_agent_is_left_to_do_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(environment["DOM0_STATE"], "a")
    monkeypatch.setenv("DOM0_STATE", environment["DOM0_STATE"])
    down._note_down()
    last = list(read(Path(environment["DOM0_STATE"], "events"), 0))[-1]
    assert (last.seq, last.kind, last.actor) == (2, Kind.DOWN, f"uid {os.getuid()}")
