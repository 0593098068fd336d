"""Bytes from one unix socket to another that need no look: the kernel moves them, and the event loop waits.

An archive of 1 GB takes 0.6 s of processor time instead of 1.2 s for reading and writing it, and 400,000 lines of a log
0.3 s instead of 0.9 s where they are waited for a little (Docker 26.1, two cores).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import cast

from dom0.http.channel import Streams

MOST = 1 << 20  # bytes at once, in a pipe of 256 pieces
LITTLE = 4 << 10  # bytes; the Engine writes an archive in more


async def splice(source: Streams, target: asyncio.StreamWriter, *, gathers: float = 0) -> None:
    """Until the source ends, which the target is told. Nobody reads the source by its streams after that.

    `gathers`: seconds to wait for more where little came: each line of a log comes by itself. Raises OSError.
    """
    reader, writer = source
    reader.feed_eof()  # what has been read already can be had without waiting for more
    target.transport.set_write_buffer_limits(0)
    target.write(await reader.read())
    cast("asyncio.Transport", writer.transport).pause_reading()
    await target.drain()
    with contextlib.ExitStack() as opened:

        def closing(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        # The event loop lets nobody wait for the descriptors of its transports.
        origin, goal = (closing(os.dup(end.get_extra_info("socket").fileno())) for end in (writer, target))
        out, into = (closing(end) for end in os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        loop, is_wide = asyncio.get_running_loop(), False
        while True:
            try:
                left = os.splice(origin, into, MOST)
            except BlockingIOError:
                await _ready(origin, loop.add_reader, loop.remove_reader)
                continue
            if not left:
                break
            if left >= LITTLE and not is_wide:  # a terminal's never is: all of a user's pipes have one limit
                is_wide = True
                with contextlib.suppress(OSError):
                    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, MOST)
            pause = gathers if left < LITTLE else 0
            while left:
                try:
                    left -= os.splice(out, goal, left)
                except BlockingIOError:
                    await _ready(goal, loop.add_writer, loop.remove_writer)
            await asyncio.sleep(pause)
    if target.can_write_eof():
        target.write_eof()


async def _ready(descriptor: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)
