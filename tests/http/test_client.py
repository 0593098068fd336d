"""The client against a server of the standard library, and against what broken and hostile ones send."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import socketserver
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO

import pytest

from dom0.http.channel import Malformed, Streams
from dom0.http.client import Body, Client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Echo(BaseHTTPRequestHandler):
    """Answers with the request's body, in chunks, on a connection that stays open."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = (
            self._chunks()
            if self.headers["Transfer-Encoding"]
            else self.rfile.read(int(self.headers["Content-Length"]))
        )
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Connection", str(id(self.connection)))
        self.end_headers()
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _chunks(self) -> bytes:
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as it is called there
        pass

    def address_string(self) -> str:
        return ""


class EchoServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def echo(path: Path) -> Iterator[Path]:
    with EchoServer(str(path), Echo) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield path
        server.shutdown()


@contextlib.asynccontextmanager
async def client_of(path: Path) -> AsyncIterator[Client]:
    client = Client(lambda: asyncio.open_unix_connection(path), "test")
    try:
        async with asyncio.timeout(30):
            yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def served(path: Path, serve: Serve) -> AsyncIterator[Client]:
    """A client of a server that treats each connection with `serve`."""
    async with await asyncio.start_unix_server(serve, path), client_of(path) as client:
        yield client


def saying(data: bytes) -> Serve:
    """Reads one request and says that, whatever it was."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()

    return serve


async def body_of(client: Client, method: str = "GET", body: Body = None) -> bytes:
    async with client.ask(method, "/", body=body) as answer:
        return b"".join([chunk async for chunk in answer.chunks()])


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
async def test_bodies_go_and_come_whole(echo: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with client_of(echo) as client:
        assert await body_of(client, "POST", data) == data
        assert await body_of(client, "POST", io.BytesIO(data)) == data


async def test_a_connection_is_used_again(echo: Path) -> None:
    async with client_of(echo) as client:
        used = set()
        for _ in range(3):
            async with client.ask("POST", "/", body=b"x") as answer:
                used.add(answer.headers.get("x-connection"))
                assert [chunk async for chunk in answer.chunks()] == [b"x"]
    assert len(used) == 1


async def test_one_that_was_not_read_to_its_end_is_not(path: Path) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await saying(HEAD + b"o")(reader, writer)

    async with served(path, serve) as client:
        for _ in range(2):
            async with client.ask("GET", "/") as answer:
                assert answer.status == 200
    assert connections == 2


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("DELETE", 2), ("POST", 1)])
async def test_what_was_cut_off_on_a_kept_connection_is_asked_again_unless_it_could_be_done_twice(
    path: Path, method: str, times: int
) -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the first request of a connection; reads the second one and hangs up."""
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + b"ok")
            asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0])

    async with served(path, serve) as client:
        assert await body_of(client) == b"ok"
        if method == "POST":
            with pytest.raises(ConnectionError):
                await body_of(client, method)
        else:
            assert await body_of(client, method) == b"ok"
    assert asked == [method.encode()]


async def test_one_that_the_server_closed_meanwhile_is_left(path: Path) -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(HEAD + b"ok")(reader, writer)
        await writer.wait_closed()
        closed.set()

    async with served(path, serve) as client:
        assert await body_of(client, "POST") == b"ok"
        await closed.wait()
        assert await body_of(client, "POST") == b"ok"


async def test_one_that_was_reset_is_left() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"ok")
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    opened: list[Streams] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(30):
        port = server.sockets[0].getsockname()[1]

        async def connect() -> Streams:
            opened.append(await asyncio.open_connection("127.0.0.1", port))
            return opened[-1]

        client = Client(connect, "test")
        assert await body_of(client, "POST") == b"ok"
        with pytest.raises(ConnectionResetError):
            await opened[0][0].read()
        assert await body_of(client, "POST") == b"ok"
        await client.close()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nX\0: y\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_told_as_that(path: Path, data: bytes) -> None:
    async with served(path, saying(data)) as client:
        with pytest.raises(Malformed):
            await body_of(client)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        HEAD + b"o",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ],
)
async def test_an_answer_that_is_cut_off_is_a_broken_connection(path: Path, data: bytes) -> None:
    async with served(path, saying(data)) as client:
        with pytest.raises(ConnectionError):
            await body_of(client)


async def test_an_answer_without_a_length_ends_with_its_connection(path: Path) -> None:
    async with served(path, saying(b"HTTP/1.1 200 OK\r\n\r\nall\nof it")) as client:
        assert await body_of(client) == b"all\nof it"


async def test_interim_answers_are_passed_over(path: Path) -> None:
    async with served(path, saying(b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + b"ok")) as client:
        assert await body_of(client) == b"ok"


async def test_who_refuses_before_it_has_all_of_a_file_is_heard(path: Path) -> None:
    """Without ever reading more: the file is longer than what fits on the way."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
            await over.wait()

    async with served(path, serve) as client:
        async with client.ask("POST", "/", body=io.BytesIO(b"x" * (64 << 20))) as answer:
            assert answer.status == 400
            assert [chunk async for chunk in answer.chunks()] == [b"no"]
        over.set()


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


async def test_a_file_that_cannot_be_read_is_the_reason(echo: Path) -> None:
    unreadable: IO[bytes] = Unreadable()
    async with client_of(echo) as client:
        with pytest.raises(OSError, match="Input/output error"):
            await body_of(client, "POST", unreadable)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/\0", "/ü"])
async def test_a_target_that_is_not_quoted_is_never_sent(echo: Path, target: str) -> None:
    async with client_of(echo) as client:
        with pytest.raises((ValueError, Exception), match=r"(?i)illegal|codec") as refused:
            async with client.ask("GET", target):
                pass
    assert not isinstance(refused.value, ConnectionError)
