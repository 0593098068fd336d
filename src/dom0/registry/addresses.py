"""Addresses of servers. On an unreliable line a DNS query is lost as often as any packet, and costs seconds each time:
so an answer is used as long as the process runs, and refreshed in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable

from dom0.http.channel import Streams

FRESH = 300.0  # seconds in which an answer is not asked for again
NEXT_ADDRESS = 2.5  # seconds after which the next address is tried as well


class Addresses:
    """`close` it at the end."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}  # by name; the one to try first is first
        self._asked: dict[str, float] = {}
        self._questions: dict[str, asyncio.Task[list[str]]] = {}

    async def find(self, host: str) -> tuple[str, ...]:
        """IP addresses, in the order to try them. Raises OSError, and UnicodeError for what is no name."""
        if time.monotonic() >= self._asked.get(host, 0.0) + FRESH or host not in self._known:
            if host not in self._questions:  # one at a time for each name: it is in a thread that nothing can end
                self._questions[host] = asyncio.create_task(self._ask(host))
                self._questions[host].add_done_callback(lambda done: self._end(host, done))
            if host not in self._known:
                return tuple(await asyncio.shield(self._questions[host]))
        return tuple(self._known[host])

    async def connect(self, host: str, to: Callable[[str], Awaitable[Streams]]) -> Streams:
        """The first connection that comes of those that `to` makes to the addresses, each begun a while after the one
        before: RFC 8305, 5. The others are given up.

        Raises what `find` does; what `to` does, if no address is left.
        """
        left = list(await self.find(host))
        running: set[asyncio.Task[Streams]] = set()
        try:
            while True:
                if left:
                    running.add(asyncio.create_task(self._try(host, left.pop(0), to)))
                wait = NEXT_ADDRESS if left else None
                ended, _ = await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                running -= ended
                for task in sorted(ended, key=lambda task: task.exception() is not None):
                    if task.exception() is None or not (running or left):
                        running |= ended - {task}
                        return task.result()
        finally:
            await _give_up(running)

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

    async def _try(self, host: str, address: str, to: Callable[[str], Awaitable[Streams]]) -> Streams:
        try:
            return await to(address)
        except BaseException:
            self.put_last(host, address)
            raise

    def _end(self, host: str, question: asyncio.Task[list[str]]) -> None:
        del self._questions[host]
        if not question.cancelled():
            question.exception()  # nobody may have waited for it

    async def _ask(self, host: str) -> list[str]:
        addresses = dict.fromkeys(await look_up(host))
        before = [address for address in self._known.get(host, []) if address in addresses]
        self._known[host] = list(dict.fromkeys([*before, *addresses]))
        self._asked[host] = time.monotonic()
        return self._known[host]


async def look_up(host: str) -> list[str]:
    """IP addresses, as the system knows them. Raises OSError, and UnicodeError for what is no name.

    asyncio's own way ends no process before the last question is answered: for that a name server has minutes.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: list[str] | Exception) -> None:
        if answer.done():  # nobody waits any more
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: list[str] | Exception
        try:
            found = [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except Exception as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    return await answer


async def _give_up(running: set[asyncio.Task[Streams]]) -> None:
    for task in running:
        task.cancel()
    for ended in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(ended, BaseException):
            ended[1].transport.abort()
