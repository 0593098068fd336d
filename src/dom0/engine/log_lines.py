"""What a container has printed, as the Engine gives it with timestamps: pieces in, lines with their times out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

LONGEST_LINE = 1 << 20  # bytes; longer ones come in parts, each with the time of the line


class Line(msgspec.Struct, frozen=True, order=True):
    moment: bytes  # RFC 3339 with nanoseconds, as the Engine writes it: sorts as text
    text: bytes = b""


async def read_lines(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[list[Line]]:
    """Those that each piece completes. To be closed, as `pieces` is then."""
    rest = b""
    async with aclosing(pieces):
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > LONGEST_LINE:
                whole, rest = [*whole, rest], rest.partition(b" ")[0] + b" "
            if whole:
                yield [Line(*line.split(b" ", 1)) for line in whole]
        if rest:
            yield [Line(*rest.split(b" ", 1))]
