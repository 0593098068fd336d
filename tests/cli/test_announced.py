"""What one process pulls another one says, as long as the first one lives."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from dom0.agent.status import PullStatus
from dom0.cli.announced import announced, announcing
from dom0.names import pull_directory

ONE, TWO = (
    PullStatus(image=image, size=2_000_000, have=500_000, rate=1e5, left=15.0, drops=3) for image in ("one", "two")
)
OTHER = """
from dom0.cli.announced import announcing
from tests.cli.test_announced import ONE

with announcing() as tell:
    tell((ONE,))
    print(flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOM0_STATE", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


def test_it_is_heard_as_long_as_the_block_lasts() -> None:
    with announcing() as first, announcing() as second:
        assert announced() == ()
        first((ONE,))
        second((TWO,))
        assert set(announced()) == {ONE, TWO}
        first(())
        assert announced() == (TWO,)
    assert announced() == ()
    assert list((pull_directory() / "commands").iterdir()) == []


def test_who_pulls_nothing_leaves_no_trace() -> None:
    with announcing() as tell:
        tell(())
    assert not pull_directory().exists()


def test_of_a_killed_process_nothing_is_said_and_nothing_stays() -> None:
    with subprocess.Popen([sys.executable, "-c", OTHER], stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"\n"
        assert announced() == (ONE,)
        other.send_signal(signal.SIGKILL)
    assert announced() == ()
    assert list((pull_directory() / "commands").iterdir()) == []


@pytest.mark.parametrize("killed", ["dom0.cli.announced.write_atomic", "os.fchmod"])
def test_nothing_stays_of_one_that_was_killed_before_it_had_said_anything(killed: str) -> None:
    program = f"import os, dom0.cli.announced\n{killed} = lambda *_, **__: os.kill(os.getpid(), 9)\n{OTHER}"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    with announcing() as tell:
        tell((ONE,))
        assert list((pull_directory() / "commands").iterdir()) != []
        assert announced() == (ONE,)
        assert len(list((pull_directory() / "commands").iterdir())) == 2
    assert list((pull_directory() / "commands").iterdir()) == []


def test_what_makes_no_sense_there_is_passed_over() -> None:
    with announcing() as tell:
        tell((ONE,))
        (said,) = (pull_directory() / "commands").glob("*.json")
        said.write_bytes(b"[\xff")
        assert announced() == ()
        (said.parent / ".x.json").mkdir()
        (said.parent / "y.json").symlink_to("/dev/zero")
        (said.parent / "y").symlink_to("/dev/zero")
        tell((ONE,))
        assert announced() == (ONE,)
