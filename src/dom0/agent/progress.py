"""Passes lines of progress to whoever follows: every follower gets each line, a slow one loses the oldest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from dom0.agent.status import Progress

BACKLOG = 1000  # lines a follower may lag behind


class Board:
    def __init__(self) -> None:
        self._followers: set[asyncio.Queue[Progress]] = set()

    def post(self, progress: Progress) -> None:
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(progress)

    @contextmanager
    def follow(self) -> Iterator[AsyncIterator[Progress]]:
        """Everything posted from here on, until the block ends."""
        queue: asyncio.Queue[Progress] = asyncio.Queue(BACKLOG)
        self._followers.add(queue)
        try:
            yield _lines(queue)
        finally:
            self._followers.discard(queue)


async def _lines(queue: asyncio.Queue[Progress]) -> AsyncIterator[Progress]:
    while True:
        yield await queue.get()
