"""What the kernel moves from one socket to another."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from dom0.socketproxy.splice import splice

LINES = [b"%d\n" % number for number in range(20_000)]


@pytest.mark.parametrize("gathers", [0, 0.0005])
async def test_lines_that_come_one_by_one_arrive_whole_and_with_their_end(
    gathers: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(source: int, target: int, most: int) -> int:
        calls.append(most)
        return moved(source, target, most)

    calls: list[int] = []
    moved = os.splice
    monkeypatch.setattr(os, "splice", counted)
    (says, heard), (told, hears) = socket.socketpair(), socket.socketpair()
    source = await asyncio.open_unix_connection(sock=heard)
    _, target = await asyncio.open_unix_connection(sock=told)
    says.setblocking(False)
    hears.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=hears)

    async def say() -> None:
        with says:
            for line in LINES:
                await asyncio.get_running_loop().sock_sendall(says, line)

    said = asyncio.gather(say(), splice(source, target, gathers=gathers))
    assert await reader.read() == b"".join(LINES)
    assert not gathers or len(calls) < len(LINES) / 4
    await said
    for end in (source[1], target, writer):
        end.close()
