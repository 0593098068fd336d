"""Progress of a change, for whoever follows it, and notifications that something has changed.

And the background tasks that end with the agent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from dom0.agent.status import Progress, PullStatus

T = TypeVar("T")
BACKLOG = 1000  # lines a follower may lag behind


class Changes:
    """Lets any number of tasks wait until something is different. None is missed between two looks."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def tell(self) -> None:
        self.count += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, count: int) -> None:
        """Wait until there has been a change since `count` was read."""
        while self.count == count:
            await self._next.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.after(self.count)


class Follower:
    """Gets each line from here on; a slow one loses the oldest."""

    def __init__(self) -> None:
        self._lines: deque[Progress] = deque(maxlen=BACKLOG)
        self._news = Changes()
        self._ended = False

    def post(self, line: Progress) -> None:
        if not self._ended:
            self._lines.append(line)
            self._news.tell()

    def end(self) -> None:
        self._ended = True
        self._news.tell()

    async def lines(self) -> AsyncIterator[Progress]:
        while True:
            await self._news.until(lambda: self._ended or bool(self._lines))
            if not self._lines:
                return
            yield self._lines.popleft()


class Board:
    """`changed` hears of pulls, which are nowhere else; `note` is the journal's."""

    def __init__(self, changed: Changes, note: Callable[..., None] = lambda *_: None) -> None:
        self.note = note
        self.pulls: tuple[PullStatus, ...] = ()
        self._followers: set[Follower] = set()
        self._changed = changed

    def post(self, line: Progress) -> None:
        for follower in self._followers:
            follower.post(line)

    def say(self, text: str, *, service: str = "") -> None:
        self.post(Progress(text=text, service=service))

    def show(self, pulls: tuple[PullStatus, ...]) -> None:
        if pulls != self.pulls:
            self.pulls = pulls
            self.post(Progress(pulls=pulls))
            self._changed.tell()

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        follower = Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)


class Background:
    """Tasks beside everything else, for as long as its block: what is still under way then is cancelled."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        await self._group.__aexit__(kind, error, trace)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
