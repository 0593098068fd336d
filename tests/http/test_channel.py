"""What comes behind a head, over real sockets: in one event after the other, and past asyncio's streams."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import h11
import pytest

from dom0.http.channel import Channel, Malformed

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
BODY = os.urandom(3 << 20)
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"%sContent-Length: %d\r\n\r\n%s" % (HEAD, len(BODY), BODY)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"%s%s0\r\n\r\n" % (
    CHUNKED,
    b"".join(b"8000\r\n%s\r\n" % BODY[at : at + 0x8000] for at in range(0, len(BODY), 0x8000)),
)
Read = Callable[[Channel], AsyncIterator[bytes]]


async def by_events(channel: Channel) -> AsyncIterator[bytes]:
    while isinstance(event := await channel.receive(), h11.Data):
        yield bytes(event.data)


async def by_content(channel: Channel) -> AsyncIterator[bytes]:
    async for part in channel.content():
        yield bytes(part)


READ = [by_events, by_content]


@asynccontextmanager
async def asked(data: bytes, *, ends: bool = False) -> AsyncIterator[Channel]:
    """A server that gets `data` while it reads."""
    ours, theirs = socket.socketpair()
    channel = Channel(h11.SERVER, await asyncio.open_unix_connection(sock=ours, limit=64 << 10))
    theirs.setblocking(False)

    async def say() -> None:
        await asyncio.get_running_loop().sock_sendall(theirs, data)
        if ends:
            theirs.shutdown(socket.SHUT_WR)

    saying = asyncio.create_task(say())
    try:
        yield channel
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        channel.abort()
        theirs.close()


async def answered(channel: Channel) -> bool:
    """Whether another request can come."""
    await channel.send(h11.Response(status_code=204, headers=[]), h11.EndOfMessage())
    return channel.begin_next()


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("sent", [LENGTH, CHUNKS])
async def test_a_request_that_was_sent_behind_a_body_is_the_next(read: Read, sent: bytes) -> None:
    async with asked(sent + sent + NEXT) as channel:
        for _ in range(2):
            assert isinstance(await channel.receive(), h11.Request)
            assert b"".join([part async for part in read(channel)]) == BODY
            assert await answered(channel)
        request = await channel.receive()
        assert isinstance(request, h11.Request)
        assert request.target == b"/next"


@pytest.mark.parametrize("sent", [HEAD + b"Content-Length: 1024\r\n\r\n%s", CHUNKED + b"400\r\n%s\r\n0\r\n\r\n"])
async def test_requests_that_wait_for_no_answer_wait_with_their_sender(sent: bytes) -> None:
    async with asked(sent % (b"a" * 1024) * 20_000) as channel:
        held = []
        for _ in range(200):
            await asyncio.sleep(0.001)  # in which as much comes as is let in
            assert isinstance(await channel.receive(), h11.Request)
            assert b"".join([part async for part in by_content(channel)]) == b"a" * 1024
            assert await answered(channel)
            begun, _ = channel.leave()
            held.append(len(begun))
        assert max(held) < 1 << 20


@pytest.mark.parametrize("sent", [LENGTH, CHUNKS])
async def test_what_is_passed_on_in_chunks_is_what_came(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    target = Channel(h11.CLIENT, await asyncio.open_unix_connection(sock=ours))
    came = h11.Connection(h11.SERVER)

    async def read() -> bytes:
        body = b""
        while not isinstance(event := came.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                came.receive_data(await asyncio.get_running_loop().sock_recv(theirs, 50_000))
            elif isinstance(event, h11.Data):
                body += event.data
        return body

    async with asked(sent) as source, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        await source.receive()
        head = [("Host", "a"), ("Transfer-Encoding", "chunked")]
        await target.send(h11.Request(method="POST", target="/", headers=head))
        await target.send_chunks(source.content())
        await target.send(h11.EndOfMessage())
    assert reading.result() == BODY
    target.abort()
    theirs.close()


async def test_a_body_is_read_where_no_descriptor_is_left() -> None:
    async with asked(CHUNKS) as channel:
        await channel.receive()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        try:
            found = b"".join([part async for part in by_content(channel)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert found == BODY


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("sent", [LENGTH, CHUNKS])
async def test_a_body_that_is_cut_off_is_none(read: Read, sent: bytes) -> None:
    async with asked(sent[:-3], ends=True) as channel:
        await channel.receive()
        with pytest.raises(ConnectionResetError):
            [part async for part in read(channel)]
        assert not await answered(channel)


@pytest.mark.parametrize("read", READ)
async def test_nothing_is_a_request_behind_chunks_that_are_none(read: Read) -> None:
    async with asked(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n" + NEXT) as channel:
        await channel.receive()
        with pytest.raises(Malformed) as refused:
            [part async for part in read(channel)]
        assert refused.value.status == 400
        assert not channel.has_unread
        assert not await answered(channel)


async def test_who_leaves_content_goes_on_with_what_is_left() -> None:
    async with asked(CHUNKS + NEXT) as channel:
        await channel.receive()
        async with aclosing(channel.content()) as content:
            first = bytes(await anext(content))
        assert first + b"".join([part async for part in by_events(channel)]) == BODY
        assert await answered(channel)
        assert isinstance(await channel.receive(), h11.Request)


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("sent", [LENGTH, CHUNKS])
async def test_what_is_no_http_begins_behind_the_body(read: Read, sent: bytes) -> None:
    async with asked(sent + b"typed", ends=True) as channel:
        await channel.receive()
        assert b"".join([part async for part in read(channel)]) == BODY
        begun, (reader, _) = channel.leave()
        assert begun + await reader.read() == b"typed"


async def test_an_answer_without_a_body_may_say_that_it_would_come_in_chunks() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(h11.CLIENT, await asyncio.open_unix_connection(sock=ours))
    with theirs:
        for method, status in (("HEAD", 200), ("GET", 304)):
            request = h11.Request(method=method, target="/", headers=[("Host", "a")])
            await channel.send(request, h11.EndOfMessage())
            theirs.send(b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
            assert isinstance(await channel.receive(), h11.Response)
            assert isinstance(await channel.receive(), h11.EndOfMessage)
            assert channel.begin_next()
    channel.abort()
