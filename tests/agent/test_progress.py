"""News and lines of progress: none is missed between two looks, and a slow reader holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from dom0.agent.progress import BACKLOG, Background, Board, Changes
from dom0.agent.status import Progress


async def test_a_change_between_a_look_and_the_wait_for_the_next_is_not_missed() -> None:
    changes = Changes()
    seen = changes.count
    changes.tell()
    async with asyncio.timeout(1):
        await changes.after(seen)


async def test_everybody_who_waits_hears_of_a_change() -> None:
    changes, seen = Changes(), 0
    waiting = [asyncio.create_task(changes.after(seen)) for _ in range(3)]
    await asyncio.sleep(0)
    changes.tell()
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)


async def test_a_slow_follower_loses_the_oldest_lines_and_still_comes_to_the_end() -> None:
    board = Board(Changes())
    with board.follow() as follower:
        for number in range(BACKLOG + 5):
            board.post(Progress(text=str(number)))
        follower.end()
        board.post(Progress(text="too late"))
        lines = [line.text async for line in follower.lines()]
    assert (lines[0], lines[-1], len(lines)) == ("5", str(BACKLOG + 4), BACKLOG)


async def test_what_runs_in_the_background_ends_with_its_block() -> None:
    ended: list[str] = []

    async def work(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(name)
        return name

    async with Background() as background:
        short = background.start(work("short", 1.0))
        long = background.start(work("long", 1e9))
        assert await short == "short"
        assert ended == ["short"]
    assert long.cancelled()
    assert ended == ["short", "long"]


async def test_a_bug_in_the_background_is_not_lost() -> None:
    async def fail() -> None:
        raise LookupError

    async def live() -> None:
        async with Background() as background:
            background.start(fail())
            await asyncio.sleep(1e9)

    with pytest.raises(ExceptionGroup):
        await live()
