"""What the Engine answers in lines, on its way to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from dom0.socketproxy import pipe


def told(chunks: Iterator[bytes]) -> list[bytes]:
    async def answer() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def passed() -> list[bytes]:
        return [chunk async for chunk in pipe.documents(answer(), lambda line: None if "other" in line else line)]

    return asyncio.run(passed())


def test_a_line_that_another_scope_has_made_too_long_ends_no_stream() -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"a":1}\n{"other":"'
        yield from [b"x" * 65_536] * (pipe.LONGEST_LINE // 65_536 + 1)
        yield b'"}\n{"other":1}\n{"a":2}\n{"a":3}'

    assert told(chunks()) == [msgspec.json.encode({"a": number}) + b"\n" for number in (1, 2, 3)]


def test_what_is_no_document_ends_the_stream() -> None:
    with pytest.raises(ConnectionAbortedError):
        told(iter([b'{"a":1}\n', b"no\n"]))
