"""What is held of a log that is searched."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any, cast

from dom0.agent.logs import MOST_KEPT, read_logs
from dom0.agent.status import LogLine, LogsRequest, Phase
from dom0.engine.protocol import Engine
from dom0.testing.fake_agent import make_service

MOMENT = b"2026-11-28T00:00:00.000000000Z "


class Talker:
    """An Engine with a container that has printed `lines` again and again."""

    def __init__(self, lines: bytes, times: int) -> None:
        self._lines = lines
        self._times = times
        self.open = self.most_open = 0

    async def follow_logs(self, ref: str, **asked: Any) -> AsyncGenerator[bytes]:
        assert asked["tail"] is None
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            for _ in range(self._times):
                await asyncio.sleep(0)
                yield self._lines
        finally:
            self.open -= 1


async def search(talker: Talker, searches: asyncio.Semaphore, **asked: Any) -> list[LogLine]:
    request = LogsRequest(container="box-web-1", **asked)
    lines = read_logs(cast("Engine", talker), make_service("web", Phase.READY), request, searches)
    return [line async for some in lines for line in some]


async def test_no_more_of_a_long_log_is_held_than_is_told() -> None:
    talker = Talker((MOMENT + b"x" * 10_000 + b"\n") * 10, 1000)  # 100 MB
    tracemalloc.start()
    try:
        found = await search(talker, asyncio.Semaphore(1), find="X", tail=5000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * MOST_KEPT
    assert sum(len(line.text) for line in found) <= MOST_KEPT
    assert found[0].left_out + len(found) == 10_000
    assert not any(line.left_out for line in found[1:])


async def test_a_line_that_is_longer_than_what_is_held_is_told_alone() -> None:
    talker = Talker(MOMENT + b"x" * MOST_KEPT + b"\n" + MOMENT + b"xy" * MOST_KEPT + b"\n", 1)
    found = await search(talker, asyncio.Semaphore(1), find="x", tail=5)
    assert [line.text[:2] for line in found] == ["xy"] * len(found)
    assert found[0].left_out


async def test_few_logs_are_searched_at_once_and_the_others_wait() -> None:
    talker, searches = Talker(MOMENT + b"x\n", 100), asyncio.Semaphore(2)
    found = await asyncio.gather(*(search(talker, searches, find="x") for _ in range(9)))
    assert [len(lines) for lines in found] == [100] * 9
    assert talker.most_open == 2
