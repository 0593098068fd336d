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


async def test_lines_of_errors_are_heard_as_they_come_and_what_is_raised_then_ends_the_program() -> None:
    heard = list[str]()
    script = "cat; printf 'one\\ntw' >&2; printf 'o\\nthree' >&2; echo out"
    output = await run.capture(["sh", "-c", script], stdin=b"in ", hear=heard.append)
    assert output == run.Output(0, "in out\n", "one\ntwo\nthree")
    assert heard == ["one", "two"]  # the last one has not ended

    def end(line: str) -> None:
        raise ValueError(line)

    began = time.monotonic()
    with pytest.raises(ValueError, match="gone"):
        await run.capture(["sh", "-c", "echo gone >&2; exec sleep 1000"], hear=end)
    assert time.monotonic() - began < 900
