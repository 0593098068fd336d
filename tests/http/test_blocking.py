"""Answers over a unix socket, as servers give them and as broken ones do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.http.blocking import ask, connect

Server = Callable[[bytes], str]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Listens on a socket and answers one question with the bytes it is given."""
    path = str(tmp_path / "sock")

    def serve(answer: bytes) -> str:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()

        def reply() -> None:
            with listening, listening.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=reply, daemon=True).start()
        return path

    return serve


def read(path: str) -> tuple[int, bytes]:
    with ask(connect(path), "GET", "/", timeout=10) as answer:
        return answer.status, answer.read()


def test_a_body_ends_with_the_connection(server: Server) -> None:
    assert read(server(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n[1,\n2]")) == (200, b"[1,\n2]")


def test_a_body_of_a_told_length_is_read_whole(server: Server) -> None:
    assert read(server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno")) == (404, b"no")


def test_lines_are_told_one_by_one(server: Server) -> None:
    with ask(connect(server(b"HTTP/1.0 200 OK\r\n\r\n1\n2\n")), "GET", "/", timeout=10) as answer:
        assert list(answer.lines()) == [b"1\n", b"2\n"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended without an answer"),
        (b"hello\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 xx OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,", "cut off"),
    ],
)
def test_what_is_no_whole_answer_is_an_error(server: Server, answer: bytes, words: str) -> None:
    with pytest.raises(ConnectionError, match=words):
        read(server(answer))


def test_half_a_line_at_the_end_of_a_stream_is_an_error(server: Server) -> None:
    with (
        ask(connect(server(b'HTTP/1.0 200 OK\r\n\r\n{}\n{"a"')), "GET", "/", timeout=10) as answer,
        pytest.raises(ConnectionError, match="cut off"),
    ):
        list(answer.lines())
