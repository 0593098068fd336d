"""What the launcher tells, as agent and commands take it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.cli.client import Agent, AgentUnreachable
from dom0.host.launcher import FILE, LauncherStatus, Runs, problems, read_status

IMAGE = f"sha256:{'1' * 64}"


def write(run: Path, text: str) -> None:
    (run / FILE).parent.mkdir(parents=True, exist_ok=True)
    (run / FILE).write_text(text)


def test_a_machine_that_went_back_says_why(tmp_path: Path) -> None:
    write(tmp_path, f"runs=last-good\nimage={IMAGE}\nwhy=dom0:latest 0123 ended 3 times\n")
    (problem,) = problems(tmp_path, IMAGE)
    assert problem.code == "last-good"
    assert problem.title == "runs from the last image that was good: dom0:latest 0123 ended 3 times"


def test_another_agent_since_then_has_no_such_problem(tmp_path: Path) -> None:
    write(tmp_path, f"runs=last-good\nimage={IMAGE}\nwhy=old\n")
    assert problems(tmp_path, f"sha256:{'2' * 64}") == ()


@pytest.mark.parametrize("runs", [Runs.LATEST, Runs.CHOSEN])
def test_what_runs_as_wanted_is_no_problem(tmp_path: Path, runs: Runs) -> None:
    write(tmp_path, f"runs={runs}\nimage={IMAGE}\nwhy=\n")
    assert read_status(tmp_path) == LauncherStatus(runs, IMAGE)
    assert problems(tmp_path, IMAGE) == ()


@pytest.mark.parametrize("text", ["", "runs=\n", "runs=something\nimage=x\n", "\0\n", "runs"])
def test_nonsense_counts_as_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert read_status(tmp_path) is None


def test_where_no_launcher_is_nothing_is_told(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None


@pytest.mark.parametrize(
    ("runs", "why", "hint"),
    [
        ("starting", "this machine has just been started", "wait"),
        ("stopped", "a person stopped it", "docker start dom0"),
        ("rescue", "there is no dom0 image", "dom0 up"),
    ],
)
def test_a_command_says_why_no_agent_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: str, why: str, hint: str
) -> None:
    monkeypatch.setenv("DOM0_RUN", str(tmp_path))
    write(tmp_path, f"runs={runs}\nimage=\nwhy={why}\n")
    with pytest.raises(AgentUnreachable) as caught:
        Agent().status()
    assert caught.value.message == f"dom0: does not run here: {why}"
    assert hint in caught.value.hint
