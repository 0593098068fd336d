"""The server as the standard library's client, curl and hostile ones find it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import shutil
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dom0.http import server
from dom0.http.server import HttpError, Request, Response, route

LIMIT = 1_000_000  # bytes


class Service:
    """Something to ask; `begun` and `ended` are what became of its endless answers."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def echo(self, request: Request) -> Response:
        return Response(await request.read(LIMIT), content_type="text/plain")

    async def show(self, request: Request) -> Response:
        return Response(json.dumps([request.path, request.captured, request.query]).encode())

    async def look(self, request: Request) -> Response:
        return await server.unless_gone(request, self.show(request))

    async def ignore(self, request: Request) -> Response:
        raise HttpError(403, "not for you")

    async def nothing(self, request: Request) -> Response:
        return Response(status=server.NO_CONTENT)

    async def bug(self, request: Request) -> Response:
        raise KeyError("bug")

    async def count(self, request: Request) -> Response:
        async def numbers() -> AsyncGenerator[bytes]:
            for number in range(3):
                yield b"%d\n" % number

        return Response(numbers())

    async def endless(self, request: Request) -> Response:
        async def numbers() -> AsyncGenerator[bytes]:
            try:
                while not request.is_gone:
                    yield b"again\n"
                    self.begun.set()
                    await asyncio.sleep(0.01)
            finally:
                self.ended.set()

        return Response(numbers())

    async def half(self, request: Request) -> Response:
        async def broken() -> AsyncGenerator[bytes]:
            yield b"half\n"
            raise KeyError("bug")

        return Response(broken())


@pytest.fixture
async def service(path: Path) -> AsyncIterator[Service]:
    service = Service()
    routes = {
        "POST /echo": service.echo,
        "GET /show/{name}": service.show,
        "GET /show/{name}/more/{other}": service.show,
        "GET /look": service.look,
        "POST /ignore": service.ignore,
        "POST /nothing": service.nothing,
        "GET /bug": service.bug,
        "GET /count": service.count,
        "GET /endless": service.endless,
        "GET /half": service.half,
    }
    async with asyncio.timeout(60), server.serve(route(routes), path):
        yield service


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("test", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


async def ask(path: Path, *requests: tuple[str, str, Any]) -> list[tuple[int, bytes]]:
    """One after the other on one connection."""

    def talk() -> list[tuple[int, bytes]]:
        answers = []
        with contextlib.closing(UnixConnection(path)) as connection:
            for method, target, body in requests:
                connection.request(method, target, body=body)
                answer = connection.getresponse()
                answers.append((answer.status, answer.read()))
        return answers

    return await asyncio.to_thread(talk)


async def say(path: Path, data: bytes) -> bytes:
    """Raw bytes, and all that comes back."""
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.closing(writer):
        writer.write(data)
        return await reader.read()


@pytest.mark.usefixtures("service")
async def test_requests_follow_each_other_on_one_connection(path: Path) -> None:
    answers = await ask(
        path,
        ("POST", "/echo", b"x" * 300_000),
        ("POST", "/echo", iter([b"in ", b"pieces"])),
        ("GET", "/count", None),
        ("HEAD", "/count", None),
        ("HEAD", "/show/a", None),
        ("POST", "/nothing", b"{}"),
        ("POST", "/echo", None),
    )
    assert answers == [
        (200, b"x" * 300_000),
        (200, b"in pieces"),
        (200, b"0\n1\n2\n"),
        (200, b""),
        (200, b""),
        (204, b""),
        (200, b""),
    ]


@pytest.mark.usefixtures("service")
async def test_paths_are_taken_apart_before_they_are_unquoted(path: Path) -> None:
    [(_, one), (_, two), (three, _), (four, _), (five, _)] = await ask(
        path,
        ("GET", "/show/a%2Fb%20c?x=1&y=&x=2", None),
        ("GET", "/show/..%2f..%2fetc/more/%7Bname%7D", None),
        ("GET", "/show/", None),
        ("GET", "/show//more/x", None),
        ("GET", "/show/a/more", None),
    )
    assert json.loads(one) == ["/show/a/b c", {"name": "a/b c"}, {"x": "2", "y": ""}]
    assert json.loads(two)[1] == {"name": "../../etc", "other": "{name}"}
    assert (three, four, five) == (404, 404, 404)


@pytest.mark.usefixtures("service")
async def test_refusals_are_documents(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = await ask(
        path,
        ("GET", "/none", None),
        ("GET", "/echo", None),
        ("POST", "/echo", b"x" * (LIMIT + 1)),
        ("POST", "/ignore", b"x" * (8 << 20)),
        ("GET", "/bug", None),
    )
    assert [(status, json.loads(body)["message"]) for status, body in answers] == [
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (413, "Request Entity Too Large"),
        (403, "not for you"),
        (500, "Internal Server Error"),
    ]
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /count HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"GET /count HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /count HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nab", b"501"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET http://a/count HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n", b"400"),
    ],
)
@pytest.mark.usefixtures("service")
async def test_what_is_no_request_is_refused_and_ends_the_connection(path: Path, data: bytes, status: bytes) -> None:
    assert (await say(path, data)).startswith(b"HTTP/1.1 " + status)
    assert (await ask(path, ("GET", "/count", None)))[0][0] == 200


@pytest.mark.usefixtures("service")
async def test_an_old_client_gets_the_answer_without_chunks(path: Path) -> None:
    head, _, body = (await say(path, b"GET /count HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")
    assert body == b"0\n1\n2\n"
    assert b"chunked" not in head


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.usefixtures("service")
async def test_curl_waits_to_be_told_to_send_a_large_body(path: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * LIMIT)
    argv = ["curl", "-sS", "--unix-socket", str(path), "-H", "Expect: 100-continue", "--expect100-timeout", "50"]
    process = await asyncio.create_subprocess_exec(
        *argv, "--data-binary", f"@{tmp_path}/large", "http://dom0/echo", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output == b"x" * LIMIT


@pytest.mark.usefixtures("service")
async def test_a_client_that_has_said_all_gets_its_answer(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    with contextlib.closing(writer):
        writer.write(b"GET /look HTTP/1.1\r\nHost: a\r\n\r\n")
        writer.write_eof()  # as `nc -N` does
        assert (await reader.read()).endswith(b'["/look", {}, {}]')


async def test_a_client_that_has_gone_ends_an_endless_answer(
    path: Path, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"again\n")
    writer.close()
    await service.ended.wait()
    assert not caplog.records


@pytest.mark.usefixtures("service")
async def test_an_answer_that_fails_midway_is_cut_off_so_that_nobody_takes_it_for_whole(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(http.client.IncompleteRead):
        await ask(path, ("GET", "/half", None))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_one_that_says_nothing_is_left_after_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENCE", 0.1)
    service = Service()
    async with server.serve(route({"POST /echo": service.echo}), path):
        assert await say(path, b"") == b""
        assert await say(path, b"GET /") == b""
        assert await say(path, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab") == b""


async def test_at_the_end_idle_connections_close_at_once_and_answers_under_way_have_a_moment(path: Path) -> None:
    service = Service()
    routes = {"GET /endless": service.endless, "GET /count": service.count}
    async with server.serve(route(routes), path, end_within=0.2):
        idle_reader, idle = await asyncio.open_unix_connection(path)
        idle.write(b"GET /count HTTP/1.1\r\nHost: a\r\n\r\n")
        await idle_reader.readuntil(b"0\r\n\r\n")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        await service.begun.wait()
    assert service.ended.is_set()
    assert await idle_reader.read() == b""
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    for open_ in (idle, writer):
        open_.close()


@pytest.mark.parametrize("turns", range(4))
async def test_a_client_that_comes_at_the_end_is_not_left_waiting(path: Path, turns: int) -> None:
    async with server.serve(route({"GET /count": Service().count}), path):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        for _ in range(turns):
            await asyncio.sleep(0)
    with client:
        client.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
