from __future__ import annotations

import time

import pytest

from dom0 import run
from dom0.run import CommandFailed


async def test_nothing_is_said_of_a_program_that_ends_just_before_it_is_killed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(300):
        async with run._running(["true"]):
            until = time.perf_counter() + number % 60 * 0.00005
            while time.perf_counter() < until:
                pass
    assert caplog.messages == []


async def test_a_program_that_is_not_there_is_said_to_be_not_installed() -> None:
    with pytest.raises(CommandFailed, match="not-there: is not installed or not on PATH"):
        await run.capture(["not-there"])
