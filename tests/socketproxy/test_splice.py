"""What goes from one socket to another without a look."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dom0.http.channel import Streams
from dom0.socketproxy.splice import event_loop, splice

LINES = [b"%d\n" % number for number in range(20_000)]
PIECES = [b"%d" % number * 8_000 for number in range(200)]


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[socket.socket, Streams, asyncio.StreamWriter, asyncio.StreamReader]]:
    """Who says something, where that is read and written by `splice`, and where it is heard."""
    (says, heard), (told, hears) = socket.socketpair(), socket.socketpair()
    source = await asyncio.open_unix_connection(sock=heard)
    _, target = await asyncio.open_unix_connection(sock=told)
    says.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=hears)
    with says:
        yield says, source, target, reader
    for end in (source[1], target, writer):
        end.close()


@pytest.mark.parametrize("gathers", [0, 0.0005])
@pytest.mark.parametrize("said", [LINES, PIECES, [*LINES[:500], *PIECES, *LINES[:500], *PIECES, b"end"]])
async def test_what_comes_piece_by_piece_arrives_whole_and_with_its_end(said: list[bytes], gathers: float) -> None:
    async with ends() as (says, source, target, reader):

        async def say() -> None:
            with says:
                for piece in said:
                    await asyncio.get_running_loop().sock_sendall(says, piece)

        saying = asyncio.gather(say(), splice(source, target, gathers=gathers))
        assert await reader.read() == b"".join(said)
        await saying


def test_a_loop_that_waits_for_less_than_a_millisecond_sees_what_comes() -> None:
    async def told() -> None:
        says, hears = socket.socketpair()
        with says, hears:
            hears.setblocking(False)
            loop = asyncio.get_running_loop()
            for number in range(200):
                loop.call_later(0.0005, says.send, b"%3d" % number)
                assert await loop.sock_recv(hears, 3) == b"%3d" % number

    with asyncio.Runner(loop_factory=event_loop) as runner:
        runner.run(told())


async def test_what_is_there_goes_at_once_of_however_many_pieces_it_is() -> None:
    async with ends() as (says, source, target, reader):
        source[1].transport.pause_reading()  # type: ignore[attr-defined]
        for line in LINES[:100]:
            says.send(line)
        splicing = asyncio.create_task(splice(source, target, gathers=3600))
        async with asyncio.timeout(30):
            assert await reader.readexactly(len(b"".join(LINES[:100]))) == b"".join(LINES[:100])
        splicing.cancel()
        await asyncio.gather(splicing, return_exceptions=True)


async def test_an_archive_whose_pieces_begin_with_little_is_not_waited_for() -> None:
    async with ends() as (says, source, target, reader):
        splicing = asyncio.create_task(splice(source, target, gathers=3600))
        async with asyncio.timeout(30):
            for size in (32 << 10, *(4 << 10, 28 << 10) * 10):
                await asyncio.get_running_loop().sock_sendall(says, bytes(size))
                assert await reader.readexactly(size) == bytes(size)
        splicing.cancel()
        await asyncio.gather(splicing, return_exceptions=True)


async def test_much_is_moved_by_the_kernel_and_no_pipe_stays_open() -> None:
    before = _pipes()
    async with ends() as (says, source, target, reader):
        moving = asyncio.gather(splice(source, target), asyncio.get_running_loop().sock_sendall(says, bytes(1 << 22)))
        assert await reader.readexactly(1 << 22) == bytes(1 << 22)
        assert _pipes() == before + 2
        says.shutdown(socket.SHUT_WR)
        await moving
    assert _pipes() == before


def _pipes() -> int:
    return sum(one.is_fifo() for one in Path("/proc/self/fd").iterdir())
