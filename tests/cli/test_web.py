"""The programs through which `dom0 web` asks another machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from dom0.cli.web import Elsewhere


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
    programs = Elsewhere()
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
