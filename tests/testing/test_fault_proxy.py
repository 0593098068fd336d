"""The line with faults has those that it is told to have, and counts what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dom0.testing.fault_proxy import FaultProxy, Faults

SIZE = 300_000


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a server that sends and closes."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(SIZE))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def received(proxy: FaultProxy) -> int:
    """Bytes until the connection ends. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        return len(await reader.read(-1))
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)  # closes it


async def test_without_faults_all_comes(port: int) -> None:
    async with FaultProxy(port) as proxy:
        assert await received(proxy) == SIZE
        assert (proxy.sent, proxy.connections, proxy.cuts) == (SIZE, 1, 0)


async def test_a_closed_connection_ends_in_the_middle(port: int) -> None:
    async with FaultProxy(port, Faults(every_bytes=100_000)) as proxy:
        assert await received(proxy) == proxy.sent < SIZE
        assert proxy.cuts == 1


async def test_a_reset_connection_is_an_error(port: int) -> None:
    async with FaultProxy(port, Faults(every_bytes=100_000, how="reset")) as proxy:
        with pytest.raises(ConnectionResetError):
            await received(proxy)


async def test_a_silent_connection_does_not_end(port: int) -> None:
    async with FaultProxy(port, Faults(every_bytes=100_000, how="stall")) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        came = 0
        while not proxy.cuts or came < proxy.sent:
            came += len(await reader.read(65536))
        assert not reader.at_eof()
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_after_a_cut_nobody_listens_for_a_while(port: int) -> None:
    async with FaultProxy(port, Faults(every_bytes=100_000, refuse=0.05)) as proxy:
        await received(proxy)
        await proxy.refuses.wait()
        with pytest.raises(ConnectionRefusedError):
            await received(proxy)
        await proxy.listens.wait()
        assert await received(proxy) > 0


async def test_a_rate_is_kept(port: int) -> None:
    async with FaultProxy(port, Faults(rate=1e6)) as proxy:
        began = asyncio.get_running_loop().time()
        assert await received(proxy) == SIZE
        assert asyncio.get_running_loop().time() - began > 0.2
