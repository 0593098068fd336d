"""What the Engine answers in lines, on its way to the client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import h11
import msgspec
import pytest

from dom0.http.channel import Channel
from dom0.socketproxy import pipe
from dom0.socketproxy.context import Document


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


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"HTTP/1.1 200 OK"), (404, b"HTTP/1.1 404 Not Found"), (599, b"HTTP/1.1 599 ")],
)
def test_an_answer_has_the_reason_that_the_engine_gives(status: int, line: bytes) -> None:
    async def answered() -> bytes:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
            client = Channel(h11.SERVER, await asyncio.open_unix_connection(sock=ours))
            await client.receive()
            await pipe.send(client, Document("", status=status))
            await client.close()
            return theirs.recv(4096)

    assert asyncio.run(answered()).splitlines()[0] == line
