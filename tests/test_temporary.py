"""What a killed process leaves in the way of temporary directories is gone with the next one, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0 import temporary
from dom0.errors import Dom0Error

HOLD = """
import pathlib
from dom0 import temporary
with temporary.directory("held") as path:
    path.joinpath("closed").mkdir(mode=0o500)
    print(path, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / f"dom0-{os.getuid()}"


@contextmanager
def holder() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a temporary directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_a_directory_is_there_for_the_block_and_private(top: Path) -> None:
    with temporary.directory("project") as path:
        assert path.name.startswith("project-")
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "full").mkdir()
    assert list(top.iterdir()) == []


@pytest.mark.parametrize("is_there", [False, True])
def test_others_may_walk_through_the_top_whatever_the_umask(top: Path, is_there: bool) -> None:
    before = os.umask(0o077)
    try:
        if is_there:
            top.mkdir()
        with temporary.directory("project"):
            assert top.stat().st_mode & 0o777 == 0o711
    finally:
        os.umask(before)


def test_it_goes_with_whatever_ends_the_block(top: Path) -> None:
    with pytest.raises(KeyError), temporary.directory("project"):
        raise KeyError
    assert list(top.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_a_running_one_has_stays(top: Path) -> None:
    with holder() as (running, kept), holder() as (killed, left):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.exists()
        with temporary.directory("next") as path:
            assert sorted(top.iterdir()) == sorted([kept, path])
        assert running.poll() is None


def test_what_is_large_lies_below_another_place_and_goes_the_same_way(top: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    with temporary.directory("images", large) as path:
        assert path.parent == large / top.name
        left = path.with_name("images-left")
        left.mkdir()
        assert not top.exists()
    with temporary.directory("images", large) as path:
        assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_somebody_else_could_write_is_not_used(top: Path) -> None:
    top.mkdir()
    top.chmod(0o777)
    with pytest.raises(Dom0Error, match="is not a directory of ours alone"), temporary.directory("project"):
        pass
    top.rmdir()
    top.symlink_to("/var")
    with pytest.raises(Dom0Error, match="is not a directory of ours alone"), temporary.directory("project"):
        pass
