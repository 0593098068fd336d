"""How `dom0 web` asks another machine, and which command it shows for that."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dom0.cli import web
from dom0.cli.web import Elsewhere
from dom0.names import Access
from dom0.testing.fake_agent import FakeAgent
from dom0.testing.hosts import until


async def until_ended(programs: Elsewhere, process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        while True:
            programs.forget_closed()
            os.kill(process, 0)
            await asyncio.sleep(0.01)


async def test_a_program_that_hangs_ends_with_its_connection_and_no_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho $$\nexec sleep 1000\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    programs = Elsewhere(Access.VIEW)
    other = await asyncio.create_subprocess_exec("true")  # as a browser that was opened
    async with asyncio.timeout(60):
        closed, used = [await programs.connect() for _ in range(2)]
        first, second = [int(await reader.readline()) for reader, _ in (closed, used)]
        closed[1].transport.abort()
        await until_ended(programs, first)
        os.kill(second, 0)
        used[1].transport.abort()
        await until_ended(programs, second)
        assert await other.wait() == 0


def test_it_opens_the_browser_of_the_person_at_its_own_address(
    agent: FakeAgent, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "run" / Access.VIEW.socket).symlink_to("dom0.sock")
    opened, program = tmp_path / "opened", tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" >{opened}.new && mv {opened}.new {opened}\n')
    program.chmod(0o755)
    argv = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "dom0", "web"]
    own = {"BROWSER": str(program), "DISPLAY": ":0"}
    with subprocess.Popen(argv, env=environment | own, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        printed = running.stdout.readline()
        try:
            until(opened.exists)
        finally:
            running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    assert opened.read_text() == printed
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#[\w-]+\n", printed)


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        ({"DOM0_RUN": "/run/dom0", "DOCKER_HOST": "ssh://me@server"}, "dom0"),
        ({"DOCKER_HOST": "ssh://me@server"}, "dom0 -H ssh://me@server"),
        ({"DOCKER_HOST": "ssh://me@server", "DOCKER_CONTEXT": "far off"}, "dom0 -H ssh://me@server"),
        ({"DOCKER_CONTEXT": "far off"}, "DOCKER_CONTEXT='far off' dom0"),
        ({}, "dom0"),  # by `docker context use`
    ],
)
def test_the_command_that_is_shown_asks_the_same_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], command: str
) -> None:
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"far off").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": "ssh://me@server"}}}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far off"}))
    for name in ("DOM0_RUN", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"DOCKER_CONFIG": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    assert web.command_to_copy() == command
