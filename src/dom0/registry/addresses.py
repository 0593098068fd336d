"""Where servers are. On a bad line a question about a name gets lost as any packet does, and costs seconds each time:
so an answer is used for as long as we run, and asked for anew beside that.
"""

from __future__ import annotations

import asyncio
import socket
import time

FRESH = 300.0  # seconds in which an answer is not asked for again


class Addresses:
    """`close` it at the end."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}  # by name; the one to try first is first
        self._asked: dict[str, float] = {}
        self._questions: dict[str, asyncio.Task[list[str]]] = {}

    async def find(self, host: str) -> tuple[str, ...]:
        """IP addresses, in the order to try them. Raises OSError, and UnicodeError for what is no name."""
        if time.monotonic() >= self._asked.get(host, 0.0) + FRESH or host not in self._known:
            question = self._question(host)
            if host not in self._known:
                return tuple(await asyncio.shield(question))
        return tuple(self._known[host])

    def put_last(self, host: str, address: str) -> None:
        """It did not answer: try the others before."""
        known = self._known.get(host, [])
        if address in known:
            known.remove(address)
            known.append(address)

    async def close(self) -> None:
        for question in self._questions.values():
            question.cancel()
        await asyncio.gather(*self._questions.values(), return_exceptions=True)

    def _question(self, host: str) -> asyncio.Task[list[str]]:
        """One at a time for each name: it is in a thread that nothing can end."""
        if host not in self._questions:
            self._questions[host] = asyncio.create_task(self._ask(host))
            self._questions[host].add_done_callback(lambda done: self._end(host, done))
        return self._questions[host]

    def _end(self, host: str, question: asyncio.Task[list[str]]) -> None:
        del self._questions[host]
        if not question.cancelled():
            question.exception()  # nobody may have waited for it

    async def _ask(self, host: str) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        before = [address for address in self._known.get(host, []) if address in addresses]
        self._known[host] = list(dict.fromkeys([*before, *addresses]))
        self._asked[host] = time.monotonic()
        return self._known[host]
