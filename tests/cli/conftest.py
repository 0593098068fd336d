"""The command line as a person runs it, and an agent that answers what a test wants."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing.fake_agent import FakeAgent, serving


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of the commands: no Engine, state and socket below `tmp_path`, nothing of the developer's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "DOM0_", "RESTIC_"))}
    places = {"DOM0_RUN": str(tmp_path / "run"), "DOM0_STATE": str(tmp_path / "state")}
    return kept | places | {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock", "HOME": str(tmp_path)}


@pytest.fixture
def dom0(environment: dict[str, str], tmp_path: Path) -> Callable[..., Output]:
    """Runs `dom0` with arguments, to its end, in an empty directory."""
    directory = tmp_path / "work"
    directory.mkdir()

    def run(*arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Output:
        done = subprocess.run(
            [sys.executable, "-m", "dom0", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env=environment | dict(env or {}),
            cwd=directory,
            check=False,
        )
        return Output(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def agent(environment: dict[str, str]) -> Iterator[FakeAgent]:
    with serving(Path(environment["DOM0_RUN"]) / "dom0.sock") as fake:
        yield fake
