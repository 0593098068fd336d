"""A TCP line with faults, on 127.0.0.1: what comes from one server is slow, late, cut off, silent, or not to be had.

It counts what it sends towards the client, and for how long nothing could come.

`python -m dom0.testing.fault_proxy PORT FAULTS` carries connections to PORT, where FAULTS are JSON: it prints its own
port, and when its standard input ends what it has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import sys
from random import Random
from typing import Literal

import msgspec

from dom0.http.server import stop_accepting

_PIECE = 16 << 10  # bytes
_TURN = 0.004  # seconds of the rate that are sent at once
_CREDIT = 0.05  # seconds of the rate that a late turn of the loop may make up for
_SILENCE = 0.5  # seconds
_BUFFER = 64 << 10  # bytes that are under way at most
_RANGE = re.compile(rb"(?i)\r\nrange:")
_RESET = struct.pack("ii", 1, 0)  # struct linger: closing sends RST


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """`every_bytes` ends a connection after about so many bytes, `every_seconds` all of them at once; 0: never.

    `how` a connection ends: "stall" leaves it open, and nothing comes any more. `refuse`: seconds after a cut in which
    nobody listens and no connection lives. `rate`: bytes a second of all together. `rtt`: seconds, for a connection and
    for each request. `ranges`: whether servers see which bytes of a file are asked for.
    """

    every_bytes: int = 0
    every_seconds: float = 0.0
    how: Literal["close", "reset", "stall"] = "close"
    refuse: float = 0.0
    rate: float = 0.0
    rtt: float = 0.0
    ranges: bool = True
    seed: int = 1


class FaultProxy:
    """Carries connections to `port` of 127.0.0.1, within `async with`."""

    def __init__(self, port: int, faults: Faults = Faults()) -> None:  # noqa: B008 -- a value that nobody changes
        self.faults = faults
        self.port = 0
        self.sent = 0  # bytes towards clients
        self.connections = 0
        self.cuts = 0
        self.outages = 0.0  # seconds in which nobody listened, or connections were silent and nothing else came
        self._to = port
        self._random = Random(faults.seed)  # noqa: S311 -- no secret
        self.listens, self.refuses = asyncio.Event(), asyncio.Event()  # which of both it does
        self._live: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._silent = 0  # connections that are
        self._was_silent = False  # whether one has been since something was sent last
        self._sent_at = 0.0
        self._free_at = 0.0
        self._timers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultProxy:
        await self._listen()
        if self.faults.every_seconds:
            self._start(self._cut_all_regularly())
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
        await self._stop_listening()
        await self._drop_all()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.refuses.clear()
        self.listens.set()

    async def _stop_listening(self) -> None:
        self.listens.clear()
        await stop_accepting(self._server)
        self.refuses.set()

    def _start(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        timer = asyncio.create_task(coroutine)
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._carry(reader, writer))
        self._live[task] = writer
        task.add_done_callback(lambda task: _abort(self._live.pop(task)))

    def _count(self, sent: int) -> None:
        now = asyncio.get_running_loop().time()
        if (self._silent or self._was_silent) and now - self._sent_at > _SILENCE:
            self.outages += now - self._sent_at
        self.sent += sent
        self._sent_at, self._was_silent = now, False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        writer.transport.set_write_buffer_limits(high=_PIECE)
        with contextlib.suppress(OSError):
            await asyncio.sleep(self.faults.rtt)
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            asking = asyncio.create_task(self._ask(reader, to_server))
            try:
                await self._answer(from_server, writer, asking)
            finally:
                asking.cancel()
                to_server.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                await asyncio.sleep(self.faults.rtt)
                to_server.write(data if self.faults.ranges else _RANGE.sub(b"\r\nPassed-Over:", data))
                await to_server.drain()
            to_server.transport.abort()

    async def _answer(
        self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter, asking: asyncio.Task[None]
    ) -> None:
        left = int(self.faults.every_bytes * self._random.uniform(0.5, 1.5)) if self.faults.every_bytes else None
        piece = min(_PIECE, int(self.faults.rate * _TURN)) or _PIECE
        while data := await from_server.read(piece if left is None else min(piece, left)):
            await self._keep_rate(len(data))
            if asking.done():  # the client has gone meanwhile
                return
            writer.write(data)
            await writer.drain()
            self._count(len(data))
            if left is not None:
                left -= len(data)
                if left == 0:
                    await self._cut(writer, asking)
                    return

    async def _keep_rate(self, count: int) -> None:
        if self.faults.rate:
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now - _CREDIT) + count / self.faults.rate
            await asyncio.sleep(max(0.0, self._free_at - now))

    async def _cut(self, writer: asyncio.StreamWriter, asking: asyncio.Task[None]) -> None:
        self.cuts += 1
        if self.faults.how == "stall":
            self._silent += 1
            try:
                await asyncio.wait([asking])  # until the client leaves
            finally:
                self._silent -= 1
                self._was_silent = True
        elif self.faults.how == "close":
            writer.close()
            await writer.wait_closed()
        else:
            _reset(writer)
        if self.faults.refuse and self.listens.is_set():
            await self._stop_listening()
            self._start(self._refuse())

    async def _refuse(self) -> None:
        began = asyncio.get_running_loop().time()
        await self._drop_all()
        await asyncio.sleep(self.faults.refuse)
        await self._listen()
        self.outages += asyncio.get_running_loop().time() - began

    async def _cut_all_regularly(self) -> None:
        while True:
            await asyncio.sleep(self.faults.every_seconds)
            self.cuts += len(self._live)
            await self._drop_all()

    async def _drop_all(self) -> None:
        tasks = dict(self._live)
        for task, writer in tasks.items():
            if self.faults.how == "reset":
                _reset(writer)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.transport.abort()


async def _main(port: int, faults: Faults) -> None:
    async with FaultProxy(port, faults) as proxy:
        print(proxy.port, flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
        print(proxy.sent, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Faults)))
