"""Waits for a revision of the farm in which something floats. `float_follow`, which acts on it, is loaded then."""

from __future__ import annotations

import asyncio


class FloatNews:
    """What the node hears from its server: the revision of the farm in which something floats; 0: nothing does."""

    def __init__(self) -> None:
        self.revision = 0
        self._news = asyncio.Event()

    def tell(self, revision: int) -> None:
        if revision != self.revision:
            self.revision = revision
            self._news.set()

    async def rest(self, seconds: float | None, beside: asyncio.Task[None] | None) -> None:
        """For so long, None: for ever; until there is another one, or what goes on beside has come to its end."""
        news = asyncio.create_task(self._news.wait())
        going_on = {beside} if beside is not None and not beside.done() else set()
        try:
            await asyncio.wait({news, *going_on}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        self._news.clear()
