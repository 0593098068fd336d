"""What a container of a service has printed: its end and what comes, or the last of the lines that are searched for."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from dom0.agent.status import LogLine, LogsRequest, ServiceStatus
from dom0.engine.log_lines import Line, read_lines
from dom0.engine.protocol import Engine

AT_ONCE = 2  # searches: each takes as much of the processor as there is of the log
MOST_KEPT = 1 << 20  # characters of the lines that a search holds; of longer ones at least the last
COLOURS = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")  # and the like, which a terminal does not show


async def read_logs(
    engine: Engine, of: ServiceStatus, asked: LogsRequest, searches: asyncio.Semaphore
) -> AsyncGenerator[list[LogLine]]:
    """To be closed, as the request to the Engine is then. A search waits for its turn among `searches`."""
    tail = None if asked.searches else asked.tail  # the Engine counts before it looks at the time
    pieces = engine.follow_logs(of.container_id, tail=tail, since=asked.since, until=asked.until, follow=asked.follow)
    async with aclosing(_tell(of, pieces)) as lines:
        if asked.searches:
            async with searches:
                found = await _search(lines, asked)
            yield found
            return
        async for some in lines:
            yield some


async def _tell(of: ServiceStatus, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[list[LogLine]]:
    async with aclosing(read_lines(pieces)) as found:
        async for lines in found:
            yield [_log_line(of, line) for line in lines]


def _log_line(of: ServiceStatus, line: Line) -> LogLine:
    return LogLine(
        time=line.moment.decode(errors="replace"),
        service=of.service,
        container=of.container,
        text=line.text.decode(errors="replace"),
    )


async def _search(lines: AsyncGenerator[list[LogLine]], asked: LogsRequest) -> list[LogLine]:
    """All of the log is read, and no more of it is held than is told."""
    wanted = asked.find.casefold()
    kept, size, left_out = deque[LogLine](), 0, 0
    async for some in lines:
        for line in some:
            if wanted in COLOURS.sub("", line.text).casefold():
                kept.append(line)
                size += len(line.text)
        while len(kept) > asked.tail or (size > MOST_KEPT and len(kept) > 1):
            size -= len(kept.popleft().text)
            left_out += 1
    if kept and left_out:
        kept[0] = replace(kept[0], left_out=left_out)
    return list(kept)
